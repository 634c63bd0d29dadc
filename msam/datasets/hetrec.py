"""HetRec 2011 Last.fm 2K as SiMF relations: users, artists, tags and friendships."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from msam.errors import MethodError
from msam.simf import Relations, matrix_from_counts


class HetRecError(MethodError):
    """A HetRec file is absent or malformed."""


def load_hetrec(folder: Path | str, without: Collection[tuple[str, str]] = ()) -> Relations:
    """Relations of the raw `.dat` files (tab-separated; the tag names are Latin-1).

    Dates are not read, so the rows dated 1956 need no care.

    Args:
        folder: holds user_artists.dat, user_taggedartists.dat, user_friends.dat and tags.dat.
        without: pairs of user and artist that nothing may tell of a user: neither plays, nor the tags that the user
            gave to that artist (which stay tags of the artist). All ids stay.

    Returns:
        user-artist log(1 + plays); user-tag and artist-tag log(1 + times given); friendship as the one network of
        `user`. User and artist ids are HetRec's numbers, tags go by name.

    Raises:
        HetRecError: for a missing file, column or malformed number.
    """
    root = Path(folder)
    tags = {row["tagID"]: row["tagValue"] for row in _rows(root / "tags.dat", ("tagID", "tagValue"))}
    hidden = frozenset(without)
    plays: Counter[tuple[str, str]] = Counter()
    artist_tag: Counter[tuple[str, str]] = Counter()
    user_tag: Counter[tuple[str, str]] = Counter()
    try:
        for row in _rows(root / "user_artists.dat", ("userID", "artistID", "weight")):
            plays[row["userID"], row["artistID"]] += int(row["weight"])
        for row in _rows(root / "user_taggedartists.dat", ("userID", "artistID", "tagID")):
            tag = tags[row["tagID"]]
            artist_tag[row["artistID"], tag] += 1
            user_tag[row["userID"], tag] += (row["userID"], row["artistID"]) not in hidden
        friends = {(r["userID"], r["friendID"]) for r in _rows(root / "user_friends.dat", ("userID", "friendID"))}
    except (KeyError, ValueError) as error:
        raise HetRecError(f"malformed HetRec data in {root}: {error!r}") from error
    links = {("user", "artist"): plays, ("artist", "tag"): artist_tag, ("user", "tag"): user_tag}
    ids: dict[str, set[str]] = {"user": {a for pair in friends for a in pair}, "artist": set(), "tag": set()}
    for (i, j), pairs in links.items():
        ids[i] |= {a for a, _ in pairs}
        ids[j] |= {b for _, b in pairs}
    types = {name: sorted(found) for name, found in sorted(ids.items())}
    links["user", "artist"] = Counter({pair: n for pair, n in plays.items() if pair not in hidden})
    matrices = {
        (i, j): matrix_from_counts({p: float(np.log1p(n)) for p, n in pairs.items() if n}, types[i], types[j])
        for (i, j), pairs in links.items()
    }
    mutual = {pair: 1.0 for a, b in friends if a != b for pair in ((a, b), (b, a))}
    return Relations(types, matrices, {"user": [matrix_from_counts(mutual, types["user"], types["user"])]})


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    try:
        with path.open(encoding="latin-1", newline="") as lines:
            reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            if missing := set(columns) - set(reader.fieldnames or ()):
                raise HetRecError(f"{path} has no column {', '.join(sorted(missing))}")
            for row in reader:
                if any(row[name] is None for name in columns):
                    raise HetRecError(f"{path} line {reader.line_num} is cut short")
                yield row
    except OSError as error:
        raise HetRecError(f"cannot read {path}: {error.strerror}") from error
