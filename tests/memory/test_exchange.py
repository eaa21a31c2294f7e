"""When a full node gets requests to make room, on a machine that demotes as much as requested."""

from dataclasses import replace

from pghotd.memory.exchange import Exchange, Reading

LOW, HIGH = 1000, 1400
FULL = Reading(free=LOW + 50, low=LOW, high=HIGH, demoted=0, slow_room=100_000)


def make(demotes: bool = True) -> Exchange:
    exchange = Exchange(0)
    exchange.demotes = demotes
    return exchange


def requests(exchange: Exchange, seen: Reading, until: int, step: int = 20, begin: int = 0, wanted: int = 4000) -> int:
    """Take repeated readings while pages wait; return the number of requests to the node."""
    number = 0
    for now in range(begin, until, step):
        if wanted:
            exchange.want(wanted, now)
        number += exchange.ask(seen, now)
    return number


def test_a_node_on_which_no_room_is_wanted_gets_no_requests():
    exchange = make()
    assert requests(exchange, FULL, 10_000, wanted=0) == 0
    assert exchange.works
    assert not exchange.is_warm(0)


def test_a_full_node_gets_requests_while_room_is_wanted_but_not_continuously():
    exchange = make()
    number = 0
    for now in range(0, 1000, 10):
        exchange.want(4000, now)
        number += exchange.ask(replace(FULL, demoted=now), now)
    assert number == 20
    assert exchange.asked == 20


def test_a_node_with_room_for_waiting_pages_gets_no_requests():
    exchange = make()
    assert requests(exchange, replace(FULL, free=HIGH + 5000), 1000) == 0
    assert requests(exchange, replace(FULL, free=LOW + 100 + 300), 1000, wanted=200, begin=1000) == 0
    assert requests(exchange, replace(FULL, free=LOW + 100 + 100), 3000, wanted=200, begin=2000) > 0


def test_without_demotion_there_are_no_requests():
    exchange = make(demotes=False)
    assert requests(exchange, FULL, 1000) == 0
    assert not exchange.works
    assert exchange.reason == ""


def test_a_node_that_demotes_nothing_is_left_alone_for_a_while():
    exchange = make()
    assert 10 <= requests(exchange, FULL, 5000) <= 60
    assert "demoted nothing" in exchange.reason
    assert not exchange.works
    assert requests(exchange, FULL, 10_000, begin=5000) == 0
    assert requests(exchange, FULL, 14_000, begin=10_000) > 0
    requests(exchange, replace(FULL, demoted=5), 20_000, begin=19_900)
    assert exchange.reason == ""


def test_a_demotion_counts_for_a_minute():
    exchange = make()
    for now, demoted in ((0, 500), (100, 500)):
        exchange.want(0, now)
        assert exchange.is_warm(now)
        assert not exchange.ask(replace(FULL, demoted=demoted), now)
        assert not exchange.has_demoted(now)
    exchange.want(0, 200)
    assert not exchange.ask(replace(FULL, demoted=501), 200)
    assert exchange.has_demoted(200 + 59_999)
    assert not exchange.has_demoted(200 + 60_000)
    # No page was worth making room for, so there was no request.
    assert exchange.asked == 0
    assert not exchange.is_warm(1300)


def test_slow_nodes_without_room_end_the_requests():
    exchange = make()
    assert requests(exchange, replace(FULL, slow_room=100), 1000) == 0
    assert "slow nodes are short of free memory" in exchange.reason
    assert requests(exchange, FULL, 2000, begin=1000) > 0
    assert exchange.works


def test_a_node_that_falls_to_low_after_an_exchange_is_restored_for_a_minute():
    exchange = make()
    requests(exchange, FULL, 100)
    halfway, low = replace(FULL, free=(LOW + HIGH) // 2 + 1, demoted=1), replace(FULL, demoted=2)
    assert exchange.is_warm(30_000)
    assert not exchange.ask(halfway, 30_000)
    assert exchange.ask(low, 30_100)
    assert not exchange.is_warm(61_000)
    assert not exchange.ask(replace(low, demoted=3), 61_000)


def test_ten_requests_over_two_seconds_show_that_it_demotes_nothing():
    exchange = make()
    for now in range(0, 2500, 250):
        exchange.want(4000, now)
        assert exchange.ask(FULL, now)
    assert exchange.works
    exchange.want(4000, 2500)
    assert not exchange.ask(FULL, 2500)
    assert not exchange.works


def test_ten_requests_in_less_than_two_seconds_show_nothing():
    exchange = make()
    assert requests(exchange, FULL, 2000, step=50) == 40
    assert exchange.works
    assert requests(exchange, FULL, 2050, step=50, begin=2000) == 0
    assert not exchange.works
