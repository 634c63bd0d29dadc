"""What a broker that has just started says for a moment is waited out, anything else is not."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from streams.log_reader import patiently


class Broker:
    """Answers with these errors, then with 7."""

    def __init__(self, *codes: int) -> None:
        self.codes, self.asked = list(codes), 0

    def __call__(self) -> int:
        self.asked += 1
        if self.codes:
            raise KafkaException(KafkaError(self.codes.pop(0)))
        return 7


@pytest.mark.parametrize(
    "code",
    [KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_LEADER_FOR_PARTITION],
)
def test_a_broker_that_has_just_started_is_asked_again(code: int) -> None:
    broker = Broker(code, code)
    assert patiently(broker) == 7 and broker.asked == 3


def test_a_refusal_is_told_at_once() -> None:
    broker = Broker(KafkaError.GROUP_AUTHORIZATION_FAILED)
    with pytest.raises(KafkaException, match="authorization"):
        patiently(broker)
    assert broker.asked == 1


def test_patience_has_an_end() -> None:
    broker = Broker(*[KafkaError.NOT_COORDINATOR] * 50)
    with pytest.raises(KafkaException, match="coordinator"):
        patiently(broker, 0.3)
    assert 1 < broker.asked < 10
