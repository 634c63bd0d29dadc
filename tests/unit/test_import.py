"""Public data sets and exports become canonical CSVs, and nothing of them is lost without being told."""

from __future__ import annotations

import csv
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.main import get_command

from msam.datasets.canonical import DatasetError, TrackRow, read_plays, read_tracks, read_users
from msam.datasets.importing import FILES, Summary, convert
from msam.datasets.sources import SOURCES, Layout, Source
from streams import cli, sources

PLAYS_1K = """\
user_000001\t2009-05-04T23:08:57Z\tA1\tDeep Dish\t\tFuck Me Im Famous
user_000001\t2009-05-04T13:54:10Z\tA2\t坂本龍一\tT2\tComposition "0919\x22
user_000001\t2009-05-04T13:54:10Z\tA2\t坂本龍一\tT2\tComposition "0919\x22
user_000002\t2009-05-04T13:54:10Z\tA2\t坂本龍一\tT2\tComposition "0919\x22
user_000002\t2008-02-30T00:00:00Z\tA2\t坂本龍一\tT2\tno such day
user_000002\t2008-02-20T00:00:00Z\tA2
"""
PROFILES_1K = (
    "#id\tgender\tage\tcountry\tregistered\nuser_000001\tm\t\tJapan\tAug 13, 2006\nuser_000009\tf\t24\tPeru\t\n"
)


def imported(layout: Layout, path: Path, out: Path, **options: Any) -> Summary:
    with Source(path, **options) as source:
        return convert(SOURCES[layout](source), out)


def rejected(out: Path) -> list[list[str]]:
    with (out / "rejected.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(params=["folder", "archive"])
def lastfm1k(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    files = {"userid-timestamp-artid-artname-traid-traname.tsv": PLAYS_1K, "userid-profile.tsv": PROFILES_1K}
    for name, text in files.items():
        written(tmp_path / "source" / "lastfm-dataset-1K" / name, text)
    if request.param == "folder":
        return tmp_path / "source"
    with zipfile.ZipFile(tmp_path / "source.zip", "w") as archive:
        for path in (tmp_path / "source").rglob("*.tsv"):
            archive.write(path, str(path.relative_to(tmp_path)))
    return tmp_path / "source.zip"


def test_lastfm1k(lastfm1k: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert imported("lastfm1k", lastfm1k, out) == Summary(3, 2, 2, 1, 2, {})
    unnamed = read_tracks(out / "tracks.csv")[0].track_id
    assert read_plays(out / "plays.csv") == [
        ("user_000001", "T2", 1241445250.0),
        ("user_000002", "T2", 1241445250.0),
        ("user_000001", unnamed, 1241478537.0),
    ]
    assert read_tracks(out / "tracks.csv")[1][:4] == ("T2", 'Composition "0919"', "A2", "坂本龍一")
    assert read_users(out / "users.csv") == [("user_000001", "m", None, "Japan")]
    (_, first, _), (_, second, why) = rejected(out)
    assert (first, second) == ("5", "6") and why == "3 columns rather than 6"


def test_the_same_names_are_the_same_track_whatever_the_file(tmp_path: Path) -> None:
    line = "u{}\t2009-05-04T23:08:57Z\t\tWarp\t\tWindowlicker\n"
    found = []
    for number in (1, 2):
        file = written(tmp_path / f"userid-timestamp-{number}.tsv", line.format(number))
        imported("lastfm1k", file, tmp_path / str(number))
        found.append(read_tracks(tmp_path / str(number) / "tracks.csv"))
    assert found[0] == found[1] and found[0][0].artist_id


def test_lfm1b_joins_names_of_what_is_played(tmp_path: Path) -> None:
    source = tmp_path / "lfm"
    written(
        source / "LFM-1b_LEs.txt",
        "31435741\t2\t4\t4\t1385212958\n7\t3\t-1\t9\t1385212000\n31435741\t2\t4\t4\t1385212959\n",
    )
    written(source / "LFM-1b_artists.txt", "2\tNirvana\n3\tBjörk\n5\tnobody\n")
    written(source / "LFM-1b_albums.txt", "4\tNevermind\t2\n")
    written(source / "LFM-1b_tracks.txt", "4\tLithium\t2\n8\tnever played\t3\n")
    written(
        source / "LFM-1b_users.txt",
        "user_id\tcountry\tage\tgender\tplaycount\tregistered_unixtime\n31435741\tUK\t-1\tn\t2\t1\n8\tDE\t3\tm\t1\t1\n",
    )
    assert imported("lfm1b", source, tmp_path / "out") == Summary(3, 2, 2, 0, 0, {})
    assert read_tracks(tmp_path / "out" / "tracks.csv") == [
        TrackRow("4", "Lithium", "2", "Nirvana", "4", "Nevermind", (), None, None),
        TrackRow("9", None, "3", None, None, None, (), None, None),  # its name file is silent on it
    ]
    assert [play.user_id for play in read_plays(tmp_path / "out" / "plays.csv")] == ["7", "31435741", "31435741"]
    assert read_users(tmp_path / "out" / "users.csv") == [("31435741", None, None, "UK")]
    first = imported("lfm1b", source, tmp_path / "first", max_users=1)
    assert first == Summary(2, 1, 1, 0, 0, {"of further listeners": 1})


def listen(time: object = 1443521965, **told: Any) -> dict[str, Any]:
    named = {"artist_name": "Rick Astley", "track_name": "Never Gonna Give You Up"}
    return {"listened_at": time, "track_metadata": named | told}


def jsonl(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_listenbrainz_export_names_the_listener_once(tmp_path: Path) -> None:
    source = tmp_path / "export"
    mapped = {"recording_mbid": "R", "artist_mbids": ["A", "B"], "release_mbid": "L"}
    more = {"duration_ms": 222000, "tags": ["pop|rock", 3], "recording_mbid": "other"}
    written(source / "user.json", '{"user_id": 1, "username": "rick"}\n')
    written(source / "feedback.jsonl", jsonl({"score": 1}))
    first = listen(mbid_mapping=mapped, additional_info=None)
    second = listen(1443521966.5, mbid_mapping=mapped, additional_info=more, release_name="Whenever")
    written(source / "listens" / "2015" / "9.jsonl", jsonl(first, second, listen(1443521967, mbid_mapping=None)))
    assert imported("listenbrainz", source, tmp_path / "out") == Summary(3, 2, 1, 0, 0, {})
    tracks = read_tracks(tmp_path / "out" / "tracks.csv")
    assert tracks[0] == TrackRow(
        "R", "Never Gonna Give You Up", "A", "Rick Astley", "L", "Whenever", ("pop rock",), 222, None
    )
    assert {play.user_id for play in read_plays(tmp_path / "out" / "plays.csv")} == {"rick"}
    assert not (tmp_path / "out" / "users.csv").exists()


@pytest.mark.parametrize(
    "record",
    [
        5,
        {},
        {"track_metadata": []},
        listen(None),
        listen("soon"),
        listen(-1),
        listen(1e300),
        listen(True),
        listen("1_0"),
        listen(int("9" * 400)),
        listen(additional_info={"tags": ["\ud800"]}),
        listen(track_name="x" * 140_000),
        listen(artist_name=7),
        listen(track_name=""),
        listen(track_name="\ud800"),
        {"user_name": "", **listen(artist_name=None)},
    ],
)
def test_a_listen_that_cannot_be_read_is_told_of_and_the_others_stay(record: object, tmp_path: Path) -> None:
    file = written(tmp_path / "1.listens", jsonl(listen(), record) + "\n" + jsonl(listen(1443521999)))
    with pytest.raises(DatasetError, match="--user"):
        imported("listenbrainz", file, tmp_path / "out")
    assert imported("listenbrainz", file, tmp_path / "out", user="u")[:5] == (2, 1, 1, 0, 1)
    assert [record for _, record, _ in rejected(tmp_path / "out")] == ["2"]  # the empty line is none


def stream(**more: object) -> dict[str, object]:
    return {
        "ts": "2020-04-11T00:27:53Z",
        "ms_played": 174674,
        "master_metadata_track_name": "Jack To The Future",
        "master_metadata_album_artist_name": "Alex Metric",
        "master_metadata_album_album_name": "Jack To The Future",
        "spotify_track_uri": "spotify:track:74cksX4vgcm0cHKaV7XE2L",
        "incognito_mode": False,
    } | more


def test_spotify_plays_begin_before_they_end(tmp_path: Path) -> None:
    source = tmp_path / "data"
    short, private = stream(ms_played=0), stream(incognito_mode=True)
    podcast = stream(master_metadata_track_name=None, spotify_track_uri=None)
    records = [stream(), short, private, podcast, stream(ms_played=None)]
    written(source / "Streaming_History_Audio_2020_0.json", json.dumps(records))
    account = {"endTime": "2020-04-11 00:27", "artistName": "Alex Metric", "trackName": "Jack", "msPlayed": 60000}
    written(source / "StreamingHistory_music_0.json", json.dumps([account]))
    written(source / "StreamingHistory_podcast_0.json", "[{}]")
    summary = imported("spotify", source, tmp_path / "out")
    left = {"of less than 30 s": 1, "of private sessions": 1, "of no music": 1}
    assert summary == Summary(1, 1, 1, 0, 1, left)
    assert read_plays(tmp_path / "out" / "plays.csv") == [("me", "74cksX4vgcm0cHKaV7XE2L", 1586564698.326)]
    (source / "Streaming_History_Audio_2020_0.json").unlink()
    assert imported("spotify", source, tmp_path / "account", user="ann").plays == 1
    assert read_plays(tmp_path / "account" / "plays.csv")[0].timestamp == 1586564760


def test_what_is_no_such_export_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    written(tmp_path / "userid-timestamp.tsv", "user_id,track_id,timestamp\n" * 5000)
    with pytest.raises(DatasetError, match=r"userid-timestamp.tsv:1: 1 columns rather than 6.*another layout"):
        imported("lastfm1k", tmp_path / "userid-timestamp.tsv", out)
    with pytest.raises(DatasetError, match=r"holds no LFM-1b_LEs.txt"):
        imported("lfm1b", tmp_path, out)
    with pytest.raises(DatasetError, match="no play found: 1 records left out: of no music"):
        imported(
            "spotify", written(tmp_path / "endsong_0.json", json.dumps([stream(master_metadata_track_name=None)])), out
        )
    with pytest.raises(DatasetError, match=r"endsong_0.json is not JSON"):
        imported("spotify", written(tmp_path / "endsong_0.json", "[{"), out)
    with pytest.raises(DatasetError, match="not a list"):
        imported("spotify", written(tmp_path / "endsong_0.json", "{}"), out)
    for user in ("", "a\nb", "\udcff"):
        with pytest.raises(DatasetError, match=r"user .* is no identity|surrogates not allowed"):
            imported("spotify", tmp_path, out, user=user)
    written(tmp_path / "more" / "lastfm-dataset-1K.tar.gz", "")
    with pytest.raises(DatasetError, match=r"unpack lastfm-dataset-1K.tar.gz first"):
        imported("lastfm1k", tmp_path / "more", out)
    with pytest.raises(DatasetError, match="cannot write"):
        imported("lastfm1k", tmp_path, tmp_path / "endsong_0.json" / "out")
    assert list(out.iterdir()) == []


def test_archives_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("__MACOSX/._endsong_0.json", b"\x00\x05\x16\x07")
        archive.writestr("endsong.json", json.dumps([stream()]))
    assert imported("spotify", tmp_path / "a.zip", tmp_path / "out").plays == 1
    raw = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "b.zip").write_bytes(raw.replace(b"174674", b"174675"))
    with pytest.raises(DatasetError, match=r"cannot read endsong.json of .*b.zip: Bad CRC-32"):
        imported("spotify", tmp_path / "b.zip", tmp_path / "other")
    local, central = raw.rfind(b"PK\x03\x04"), raw.rfind(b"PK\x01\x02")
    locked = bytearray(raw)
    locked[local + 6] |= 1
    locked[central + 8] |= 1
    (tmp_path / "c.zip").write_bytes(locked)
    with pytest.raises(DatasetError, match=r"encrypted.*unpack it first"):
        imported("spotify", tmp_path / "c.zip", tmp_path / "other")
    written(tmp_path / "endsong.json", "[" * 100_000)
    with pytest.raises(DatasetError, match=r"endsong.json is not JSON"):
        imported("spotify", tmp_path / "endsong.json", tmp_path / "other")


def test_two_exports_are_two_listeners(tmp_path: Path) -> None:
    for user in ("alice", "rob"):
        written(tmp_path / "data" / user / "user.json", json.dumps({"username": user}))
        written(tmp_path / "data" / user / "listens" / "2015" / "9.jsonl", jsonl(listen()))
    assert imported("listenbrainz", tmp_path / "data", tmp_path / "out").users == 2
    dump = written(tmp_path / "dump" / "1.listens", jsonl({"user_id": 7, **listen()}, {"user_name": "rob", **listen()}))
    assert imported("listenbrainz", dump, tmp_path / "both").users == 2


def test_an_artist_is_one_once_its_id_is_told(tmp_path: Path) -> None:
    lines = "u\t2009-05-04T23:08:57Z\t\tWarp\tT1\tW\nu\t2009-05-04T23:08:58Z\tA1\tWarp\tT1\tW\n"
    imported("lastfm1k", written(tmp_path / "userid-timestamp.tsv", lines), tmp_path / "out")
    assert [track.artist_id for track in read_tracks(tmp_path / "out" / "tracks.csv")] == ["A1"]


def test_local_files_of_spotify_are_told_apart(tmp_path: Path) -> None:
    one, two = (
        stream(spotify_track_uri=f"spotify:local:{name}:L:T:213", master_metadata_track_name=name) for name in "AB"
    )
    file = written(tmp_path / "endsong_1.json", json.dumps([one, two, stream(ts="1970-01-01T00:00:00Z")]))
    summary = imported("spotify", file, tmp_path / "out")
    assert (summary.tracks, summary.rejected) == (2, 1)


def test_an_import_is_whole_or_absent(lastfm1k: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"

    replace = Path.replace
    for last in FILES:

        def full(self: Path, target: Path, last: str = last) -> Path:
            if target.name == last:
                raise OSError(28, os.strerror(28))
            return replace(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", full)
            with pytest.raises(DatasetError, match="No space left"):
                imported("lastfm1k", lastfm1k, out)
        assert list(out.iterdir()) == []
    imported("lastfm1k", lastfm1k, out)
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    with pytest.raises(DatasetError, match="another folder"):
        imported("lastfm1k", lastfm1k, out)


Texts = st.one_of(st.text(max_size=8), st.sampled_from(["a\nb", "\r", "x" * 1100, "y" * 12_000, "\x85", "\x00"]))
Records = st.fixed_dictionaries(
    {
        "user_name": Texts,
        "listened_at": st.one_of(st.integers(-1, 7_258_118_401), st.floats(), st.just(7_258_118_399.9999)),
        "track_metadata": st.fixed_dictionaries(
            {"artist_name": Texts, "track_name": Texts, "release_name": Texts},
            optional={
                "additional_info": st.fixed_dictionaries(
                    {},
                    optional={
                        "recording_mbid": Texts,
                        "artist_mbids": st.lists(Texts, max_size=2),
                        "tags": st.lists(Texts, max_size=150),
                        "duration_ms": st.one_of(st.floats(), st.integers()),
                    },
                )
            },
        ),
    }
)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(Records, min_size=1, max_size=6))
def test_whatever_is_written_can_be_published(tmp_path_factory: pytest.TempPathFactory, records: list[Any]) -> None:
    root = tmp_path_factory.mktemp("any")
    records += [{"user_name": "u", **listen(time)} for time in range(len(records))]
    summary = imported("listenbrainz", written(root / "1.jsonl", jsonl(*records)), root / "out")
    plays = list(sources.plays(root / "out" / "plays.csv"))
    tracks = list(sources.tracks(root / "out" / "tracks.csv"))
    assert (len(plays), len(tracks)) == (summary.plays, summary.tracks)
    assert summary.plays + summary.duplicates + summary.rejected == len(records)
    times = [play.timestamp for play in read_plays(root / "out" / "plays.csv")]
    assert times == sorted(times)
    assert {play.track_id for play in read_plays(root / "out" / "plays.csv")} == {
        track.track_id for track in read_tracks(root / "out" / "tracks.csv")
    }


def test_the_command(lastfm1k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["import", "lastfm1k", str(lastfm1k), "--out", str(tmp_path / "out")]
    get_command(cli.build()).main([*arguments, "--json"], prog_name="msam", standalone_mode=False)
    summary = json.loads(capsys.readouterr().out)
    assert summary["plays"] == 3 and summary["rejected"] == 2 and summary["out"] == str(tmp_path / "out")
    arguments[-1] = str(tmp_path / "again")
    get_command(cli.build()).main(arguments, prog_name="msam", standalone_mode=False)
    told = capsys.readouterr().out.replace("\n", " ")
    assert "3 plays of 2 tracks by 2 listeners" in told and "2 records unreadable" in told
