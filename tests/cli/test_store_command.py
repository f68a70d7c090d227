"""`fastsim data update`, and stores wherever a command reads bars."""

import pytest
from stand_ins import ONE, TWO, altered, usual

from fastsim.cli import main
from fastsim.data.store import Store

MAKE = ["data", "update", "us", "--source", "stand_ins:one", "--symbols", "KO", "PEP"]
MAKE += ["--start", "2024-01-01"]


@pytest.fixture(autouse=True)
def house(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    usual()


def said(capsys, *arguments):
    main(arguments)
    return capsys.readouterr().out


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_a_store_is_made_updated_listed_and_checked(capsys):
    text = said(capsys, *MAKE, "--now", "2024-02-01T12:00")
    assert "all 23 bars of KO were fetched from stand_ins:one" in text
    wanted = "us: 2 symbols, 2024-01-01 to 2024-02-09, 1d; bars: 60 by stand_ins:one; updated"
    assert wanted in said(capsys, "data", "update", "us", "--now", "2024-02-10")
    assert "No new bars." in said(capsys, "data", "update", "us", "--now", "2024-02-10")
    assert f"store:{wanted}" in said(capsys, "data", "list")
    assert "30 bars of 2 symbols" in said(capsys, "data", "check", "store:us")


def test_sources_may_be_named_in_one_go_or_one_by_one(capsys):
    TWO.serve(**ONE.frames)
    said(capsys, *MAKE, "--source=stand_ins:two", "--now", "2024-02-01")
    assert Store.open("us").spec.sources == ("stand_ins:one", "stand_ins:two")


def test_what_is_wrong_is_one_line(capsys):
    assert "to make it, say --source" in refused(capsys, "data", "update", "us")
    assert "overlap must be >= 2" in refused(capsys, *MAKE, "--overlap", "1")
    said(capsys, *MAKE, "--now", "2024-02-01")
    ONE.serve(KO=altered(ONE.frames["KO"], "2024-01-31", low=0.9))
    line = refused(capsys, "data", "update", "us", "--now", "2024-02-10")
    assert line.startswith("fastsim: nothing is changed: KO was revised by stand_ins:one: low on")
    (folder,) = {path.parent for path in Store.open("us").folder.glob("store.json")}
    (folder / "store.json").write_text("{")
    assert "store.json: damaged" in refused(capsys, "data", "check", "store:us")
    assert "us: stores/us/store.json: damaged" in said(capsys, "data", "list")
