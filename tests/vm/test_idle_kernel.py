from tests.vm.idle_kernel import OPTIONS, changed


def test_options_are_set_once_and_no_module_is_left():
    before = [
        "CONFIG_X86=y",
        "# CONFIG_IDLE_PAGE_TRACKING is not set",
        "CONFIG_MODULES=y",
        "CONFIG_VIRTIO_BLK=m",
        'CONFIG_SYSTEM_TRUSTED_KEYS="debian/certs/debian-uefi-certs.pem"',
    ]
    after = changed(before)
    assert after[0] == "CONFIG_X86=y"
    assert "CONFIG_IDLE_PAGE_TRACKING=y" in after
    assert "# CONFIG_MODULES is not set" in after
    assert 'CONFIG_SYSTEM_TRUSTED_KEYS=""' in after
    assert not any(line.endswith("=m") for line in after)
    assert len(after) == len(set(after)) == 1 + len(OPTIONS)


def test_options_that_a_configuration_lacks_are_added():
    assert changed([]) == changed(["CONFIG_USB=m"])
