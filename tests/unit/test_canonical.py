"""Canonical CSVs: the real files read whole, every kind of bad row named by file and line."""

from pathlib import Path

import pytest

from msam.datasets.canonical import DatasetError, PlayRow, TrackRow, UserRow, read_plays, read_tracks, read_users


def write(folder: Path, text: str | bytes) -> Path:
    """A file with this text."""
    path = folder / "data.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_real_plays_tracks_users(data_dir: Path) -> None:
    plays = read_plays(data_dir / "lfm_timeline" / "plays.csv")
    assert len(plays) == 64_033 and plays[0] == PlayRow("7438644", "8746", 1187708111.0)
    tracks = read_tracks(data_dir / "lfm_timeline" / "tracks.csv")
    assert len(tracks) == 19_323
    assert tracks[0] == TrackRow("8746", None, "1376", None, "3036", None, (), None, None)
    assert len(read_users(data_dir / "lfm_timeline" / "users.csv")) == 12
    assert len(read_tracks(data_dir / "classic_rock" / "tracks.csv")) == 2_035


def test_column_order_quotes_bom_and_extra_columns(tmp_path: Path) -> None:
    path = write(tmp_path, '\ufefftimestamp,mood,user_id,track_id\n5,calm,"a,b",t1\n')
    assert read_plays(path) == [PlayRow("a,b", "t1", 5.0)]


def test_optional_track_columns(tmp_path: Path) -> None:
    head = "track_id,title,artist_id,artist,album_id,album,labels,duration,year\n"
    path = write(tmp_path, head + "t1,Song,,,,,rock| indie |,12.5,1999\n")
    assert read_tracks(path) == [TrackRow("t1", "Song", None, None, None, None, ("rock", "indie"), 12.5, 1999)]


def test_users(tmp_path: Path) -> None:
    path = write(tmp_path, "user_id,gender,age,country\nu1,f,24,Iceland\nu2,,,\n")
    assert read_users(path) == [UserRow("u1", "f", 24, "Iceland"), UserRow("u2", None, None, None)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("u1,t1,soon", "timestamp 'soon' is not a number"),
        ("u1,t1,nan", "timestamp 'nan'"),
        ("u1,t1,1_000", "timestamp '1_000'"),
        ("u1,t1,-1", "timestamp '-1'"),
        ("u1,t1,1187708111000", "Unix seconds"),
        (",t1,5", "user_id is empty"),
        ("u1,,5", "track_id is empty"),
        ("u1,t1", "the header has 3 columns"),
        ("u1,t1,5,6", "the header has 3 columns"),
        ('u1,"' + "x" * 200_000 + '",5', "not valid CSV"),
    ],
)
def test_bad_rows_name_file_and_line(tmp_path: Path, row: str, message: str) -> None:
    path = write(tmp_path, f"user_id,track_id,timestamp\nu0,t0,1\n{row}\n")
    with pytest.raises(DatasetError, match=message) as caught:
        read_plays(path)
    assert str(caught.value).startswith(f"{path}:3: ")


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"data.csv:1: no column timestamp"):
        read_plays(write(tmp_path, "user_id,track_id\nu1,t1\n"))
    with pytest.raises(DatasetError, match=r"data.csv:1: no column"):
        read_plays(write(tmp_path, ""))
    with pytest.raises(DatasetError, match=r"data.csv:3: not UTF-8"):
        read_plays(write(tmp_path, b"user_id,track_id,timestamp\nu1,t1,1\n\xff,t1,2\n"))
    with pytest.raises(DatasetError, match=r"cannot read .*nowhere"):
        read_plays(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="age '200'"):
        read_users(write(tmp_path, "user_id,gender,age,country\nu1,,200,\n"))
