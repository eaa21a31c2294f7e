from pghotd.sources.section_scan import stretched_ms


def test_a_scan_takes_a_twentieth_of_the_time_at_most():
    assert stretched_ms(1000, 0) == stretched_ms(1000, 0.05) == 1000
    assert stretched_ms(1000, 0.1) == 2000
