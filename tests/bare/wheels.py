"""`pip install` of the wheel and the sdist in a bare tree."""

from tests.bare.tree import SOURCE, unpacked

#: Run from a directory outside the checkout.
_TRY = """
set -e
python3 -m venv /srv/building
/srv/building/bin/pip install -q build
/srv/building/bin/python -m build --outdir /srv/dist {source} > /srv/log 2>&1 || {{ tail -n 30 /srv/log; exit 1; }}
for built in /srv/dist/*.whl /srv/dist/*.tar.gz; do
    python3 -m venv --clear /srv/venv
    /srv/venv/bin/pip install -q "$built"
    /srv/venv/bin/pghotd --version
    /srv/venv/bin/pghotctl --help > /dev/null
    /srv/venv/bin/mount.pghotd --help > /dev/null
    /srv/venv/bin/python - <<'END'
import pathlib, pghotd, pghotd.fs.mount
assert pathlib.Path(pghotd.__file__).is_relative_to("/srv/venv"), pghotd.__file__
assert pathlib.Path(pghotd.__file__).with_name("py.typed").exists(), "no py.typed"
END
    echo "pip install ${{built##*/}}: works"
done
"""


def test(release: str) -> None:
    """Build both, install each in a fresh environment, and run the programs from there."""
    with unpacked(release) as bare:
        bare.must("make", "packages", directory=SOURCE)
        bare.must("sh", "-c", _TRY.format(source=SOURCE))
