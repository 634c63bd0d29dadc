"""What `msam doctor` makes of what it has seen: pure judgements, each with what to do."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from streams.partitioner import partition_for
from streams.serialization import CONFLUENT, SINGLE_OBJECT, schema_named

GIB = 2**30
_AHEAD_S = 5.0
_DAY_S = 86_400.0
_SLACK = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """One check and its result; `remedy` says what to do where it is not `ok`."""

    check: str
    ok: bool
    text: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Sampled:
    """A record that was looked at."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    time: float


@dataclass(frozen=True, slots=True)
class Lag:
    """A group in one partition at one moment: what it has committed and where the log ends."""

    committed: int
    end: int

    @property
    def behind(self) -> int:
        """Offsets to go."""
        return max(self.end - self.committed, 0)


def topics_as_declared(count: int, differences: Sequence[str]) -> list[Finding]:
    """Partition counts, clean-up policies, retention."""
    if not differences:
        return [Finding("topics", True, f"{count} topics are as declared")]
    remedy = (
        "create missing topics with `msam topics create`; correct the others with Kafka's own tools, or the setting"
    )
    return [Finding("topics", False, text, remedy) for text in differences]


def rights(
    user: str, resource: str, name: str, needed: Sequence[str], granted: Collection[str] | None
) -> list[Finding]:
    """What an ACL keeps `user` from: one finding a missing operation. `granted` None: not even to be described."""
    missing = [operation for operation in needed if granted is None or operation not in granted]
    return [
        Finding(
            "rights",
            False,
            f"{user} may not {operation} {resource} {name}",
            f"kafka-acls.sh --bootstrap-server HOST:PORT --command-config ADMIN.properties --add "
            f"--allow-principal User:{user} --operation {_as_acl(operation)} --{resource} {name}",
        )
        for operation in missing
    ]


def _as_acl(operation: str) -> str:
    """An operation as `kafka-acls.sh` calls it: DESCRIBE_CONFIGS is DescribeConfigs there."""
    return "".join(part.capitalize() for part in operation.split("_"))


def keys_in_place(topic: str, sample: Sequence[Sampled], partitions: int) -> Finding:
    """Whether keys lie in their murmur2 partition."""
    keyed = [record for record in sample if record.key]
    wrong = [r for r in keyed if r.key is not None and partition_for(r.key, partitions) != r.partition]
    if not wrong:
        return Finding("keys", True, f"{topic}: {len(keyed)} sampled keys lie in their murmur2 partition")
    where = f"{topic}[{wrong[0].partition}]@{wrong[0].offset}"
    text = (
        f"{topic}: {len(wrong)} of {len(keyed)} sampled keys lie in another partition than murmur2 names, as in {where}"
    )
    remedy = (
        "set the producer's partitioner to murmur2_random (librdkafka), then `msam dlq redrive` what became letters"
    )
    return Finding("keys", False, text, remedy)


def schemas_known(topic: str, schema: str, sample: Sequence[Sampled], registry: bool) -> Finding:
    """Whether this program can read what producers write now."""
    values = [record.value for record in sample if record.value]
    ours = {schema, "sealed_play"} if schema == "play" else {schema}
    strange = [v for v in values if v.startswith(SINGLE_OBJECT) and schema_named(v) not in ours]
    framed = [] if registry else [v for v in values if v.startswith(CONFLUENT)]
    if strange:
        text = f"{topic}: {len(strange)} of {len(values)} sampled records name a schema that is not {schema}'s"
        return Finding("schemas", False, text, "upgrade the workers, or let the producer write with our schemas")
    if framed:
        text = f"{topic}: {len(framed)} of {len(values)} sampled records need a Schema Registry, and none is configured"
        return Finding("schemas", False, text, "set MSAM_REGISTRY_URL for workers, trainer and commands")
    return Finding("schemas", True, f"{topic}: {len(values)} sampled records name schemas that are known")


def sealed_plays(count: int, broken: Sequence[str], keys: bool, master: bool) -> Finding:
    """Whether sealed plays are met with a master key. `broken`: why some of the sampled ones can never be read."""
    if (count or keys) and not master:
        text = f"{count} sampled plays are sealed" if count else "user-keys holds keys"
        remedy = "set MSAM_MASTER_KEY_FILE for workers, trainer and commands; until then each becomes a dead letter"
        return Finding("sealed", False, f"{text}, and no master key is set", remedy)
    if broken:
        remedy = "is the master key everywhere the same? Who seals must do it as docs/schemas.md says"
        return Finding("sealed", False, f"{len(broken)} of {count} sampled sealed plays: {broken[0]}", remedy)
    return Finding("sealed", True, f"{count} sampled plays are sealed")


def lag_of(group: str, place: str, samples: Sequence[Lag], waiting: bool) -> Finding | None:
    """A partition whose lag grows or stands; `waiting` tells whether there is a record beyond the committed offset.

    Offsets that are commit markers count as lag to Kafka, and nobody ever consumes them.
    """
    first, last = samples[0], samples[-1]
    done, came = last.committed - first.committed, last.end - first.end
    if first.behind and done == 0 and waiting:
        text = f"{group} stands at {place}@{last.committed}, {last.behind} behind"
        remedy = "start workers (`msam worker`), or see what `/health/ready` and the log of the one that runs say"
        return Finding("lag", False, text, remedy)
    if came > 1.2 * done + _SLACK:
        text = f"{group} falls behind in {place}: {came} came while {done} were handled, {last.behind} wait"
        return Finding("lag", False, text, "run more workers, up to the number of partitions")
    return None


def disk_space(path: str, total: int, free: int) -> Finding:
    """At least 1 GiB and 5 % free."""
    text = f"{path}: {free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if free >= GIB and free >= total / 20:
        return Finding("disk", True, text)
    remedy = "free space or move it: Kafka and RocksDB stop when they cannot write, and nothing is answered then"
    return Finding("disk", False, text, remedy)


def clocks(now: float, appended: Iterable[float], played: Iterable[tuple[float, float]]) -> list[Finding]:
    """`appended`: append times, by the broker's clock; `played`: pairs of played_at and append time. Unix seconds."""
    newest = max(appended, default=now)
    found = []
    if newest > now + _AHEAD_S:
        text = f"the broker's clock is {newest - now:.0f} s ahead of this machine's"
        found.append(Finding("clock", False, text, "run NTP on both; a replay's time range is by the broker's clock"))
    early = sum(at > append + _DAY_S for at, append in played)
    if early:
        text = f"{early} sampled plays were played more than a day after they arrived"
        found.append(
            Finding("clock", False, text, "set the producers' clocks; such plays stay newest in their windows")
        )
    return found or [Finding("clock", True, "no clock is seen to run ahead")]


def live_model(version: str | None, problem: str | None) -> Finding:
    """Whether there is a model and its artifact can be read."""
    if version is None:
        return Finding("model", False, "no model is live, so plays wait", "train the first one: `msam trainer --once`")
    if problem is not None:
        remedy = "mount the model store at the path that `msam models list --json` shows, or `msam models rollback`"
        return Finding("model", False, f"{version} is live: {problem}", remedy)
    return Finding("model", True, f"{version} is live and its artifact can be read")


def compatibility(answers: Mapping[str, bool]) -> list[Finding]:
    """By subject: whether the registry finds our schema compatible with its newest version."""
    bad = [subject for subject, good in answers.items() if not good]
    remedy = "register our schemas (schemas/*.avsc) under the subject, or remove what was registered by mistake"
    if bad:
        return [Finding("registry", False, f"{subject}: our schema is not compatible", remedy) for subject in bad]
    return [Finding("registry", True, f"reachable, {len(answers)} of our subjects are registered and compatible")]
