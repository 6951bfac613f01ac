"""The state machine that makes a topic's stream contiguous, without Redis."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.position import GapReason, Position
from holdfast.gateway.topics.feed import HELD_MESSAGES, Feed, Jump, Message, Stage, Step
from holdfast.messaging.live import TopicReading

E1, E2 = "run1-1", "run2-2"


def message(offset: int, epoch: str = E1) -> Message:
    return Message(epoch, offset, b"%d" % offset)


def reading(top: int, *offsets: int, first: int | None = 1, epoch: str = E1) -> TopicReading:
    return TopicReading(epoch, top, first, [(offset, b"%d" % offset) for offset in offsets])


def live_at(top: int, *, replay_limit: int = 500) -> Feed:
    feed = Feed(replay_limit=replay_limit)
    feed.confirmed()
    feed.begin_reading()
    assert feed.read(reading(top)) == []
    assert stage_of(feed) is Stage.LIVE
    return feed


def stage_of(feed: Feed) -> Stage:
    """A call, because mypy takes an attribute that it has once narrowed for unchanged."""
    return feed.stage


def catch_up(feed: Feed, answer: TopicReading) -> list[Step]:
    feed.begin_reading()
    return feed.read(answer)


def test_messages_pass_as_they_come() -> None:
    feed = live_at(41)

    assert feed.received(message(42)) == [message(42)]
    assert feed.received(message(43)) == [message(43)]
    assert feed.position == Position(E1, 43)


def test_a_message_seen_before_is_dropped() -> None:
    feed = live_at(41)

    assert feed.received(message(41)) == []
    assert stage_of(feed) is Stage.LIVE


def test_nothing_passes_before_the_subscription_is_confirmed() -> None:
    feed = Feed(replay_limit=500)

    assert feed.received(message(1)) == []
    assert feed.position is None


def test_messages_during_the_first_reading_are_held_and_told_once() -> None:
    feed = Feed(replay_limit=500)
    feed.confirmed()
    assert feed.begin_reading() is None
    assert [feed.received(message(offset)) for offset in (41, 42, 43)] == [[], [], []]

    assert feed.read(reading(42)) == [message(43)]
    assert feed.position == Position(E1, 43)


def test_a_hole_is_read_and_told_in_order() -> None:
    feed = live_at(41)

    assert feed.received(message(44)) == []
    assert stage_of(feed) is Stage.READING
    assert feed.begin_reading() == 41
    assert feed.received(message(45)) == []
    assert feed.received(message(46)) == []

    assert feed.read(reading(45, 42, 43, 44, 45)) == [message(offset) for offset in (42, 43, 44, 45, 46)]
    assert stage_of(feed) is Stage.LIVE


def test_a_confirmation_out_of_the_blue_is_a_lost_connection() -> None:
    feed = live_at(41)

    feed.confirmed()

    assert catch_up(feed, reading(43, 42, 43)) == [message(42), message(43)]


def test_a_reading_made_before_the_confirmation_is_not_the_last() -> None:
    feed = live_at(41)
    feed.received(message(44))
    feed.begin_reading()
    feed.confirmed()

    assert feed.read(reading(44, 42, 43, 44)) == [message(42), message(43), message(44)]
    assert stage_of(feed) is Stage.READING
    assert catch_up(feed, reading(45, 45)) == [message(45)]
    assert stage_of(feed) is Stage.LIVE


def test_a_reading_that_arrives_after_the_connection_broke_changes_nothing() -> None:
    feed = live_at(41)
    feed.recheck()
    feed.begin_reading()
    feed.lost()

    assert feed.read(reading(43, 42, 43)) == []
    assert feed.position == Position(E1, 41)


def test_another_epoch_is_a_jump() -> None:
    feed = live_at(41)

    assert feed.received(message(2, E2)) == []

    assert catch_up(feed, reading(2, epoch=E2)) == [Jump(GapReason.EPOCH, Position(E2, 2))]
    assert feed.received(message(3, E2)) == [message(3, E2)]


def test_a_message_of_an_ended_epoch_does_not_read_for_ever() -> None:
    feed = live_at(41)
    feed.recheck()
    feed.begin_reading()
    feed.received(message(42, E1))

    assert feed.read(reading(0, first=None, epoch=E2)) == [Jump(GapReason.EPOCH, Position(E2, 0))]
    assert stage_of(feed) is Stage.READING
    assert catch_up(feed, reading(0, first=None, epoch=E2)) == []
    assert stage_of(feed) is Stage.LIVE


def test_what_left_the_window_is_a_jump_and_never_a_part() -> None:
    feed = live_at(41)
    feed.received(message(50))

    assert catch_up(feed, reading(50, first=45)) == [Jump(GapReason.TRIMMED, Position(E1, 50))]


def test_a_reading_with_a_hole_in_it_is_a_jump() -> None:
    feed = live_at(41)
    feed.received(message(45))

    assert catch_up(feed, reading(45, 42, 43, 45)) == [Jump(GapReason.TRIMMED, Position(E1, 45))]


def test_more_messages_than_can_be_held_are_read_instead() -> None:
    feed = live_at(0, replay_limit=10_000)
    feed.recheck()
    feed.begin_reading()
    for offset in range(1, HELD_MESSAGES + 3):
        assert feed.received(message(offset)) == []

    feed.read(reading(0, first=None))
    assert stage_of(feed) is Stage.READING
    everything = range(1, HELD_MESSAGES + 3)
    assert catch_up(feed, reading(HELD_MESSAGES + 2, *everything)) == [message(offset) for offset in everything]


@given(
    st.lists(
        st.sampled_from(["publish", "publish", "lose", "repeat", "confirm", "break", "begin", "read"]), max_size=80
    )
)
def test_whatever_happens_the_stream_is_contiguous_and_ends_complete(happenings: list[str]) -> None:
    feed = live_at(0)
    told: list[Step] = []
    top = 0
    under_way: TopicReading | None = None

    def read_now() -> TopicReading:
        since = feed.begin_reading() or 0
        return reading(top, *range(since + 1, top + 1), first=1 if top else None)

    for happening in [*happenings, "break", "confirm"]:
        if happening in {"publish", "lose"}:
            top += 1
            if happening == "publish":
                told += feed.received(message(top))
        elif happening == "repeat" and top:
            told += feed.received(message(top))
        elif happening == "confirm":
            feed.confirmed()
        elif happening == "break":
            feed.lost()
        elif happening == "begin" and feed.stage is Stage.READING and under_way is None:
            under_way = read_now()
        elif happening == "read" and under_way is not None:
            told += feed.read(under_way)
            under_way = None
    if under_way is not None:
        told += feed.read(under_way)
    while feed.stage is Stage.READING:
        told += feed.read(read_now())

    assert told == [message(offset) for offset in range(1, top + 1)]
