"""What a caller can ask for."""

import pytest

from telemetry.connector.plan import Limits, Retry, UserMedia


@pytest.mark.parametrize("microphone", [False, True])
@pytest.mark.parametrize("camera", [False, True])
def test_user_media_is_a_pair(microphone, camera):
    """A wish for media is exactly a wish for a microphone and one for a camera."""
    media = UserMedia.of(microphone, camera)

    assert (media.microphone, media.camera) == (microphone, camera)


def test_user_media_combine():
    """Two wishes together cover both, and neither covers the other."""
    both = UserMedia.MICROPHONE | UserMedia.CAMERA

    assert both is UserMedia.MICROPHONE_AND_CAMERA
    assert both.covers(UserMedia.CAMERA)
    assert not UserMedia.CAMERA.covers(both)
    assert UserMedia.NONE.covers(UserMedia.NONE)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_limits_must_be_times(value):
    """A limit that is no positive time is refused by its name."""
    with pytest.raises(ValueError, match="ice_s"):
        Limits(ice_s=value)


def test_backoff_grows_to_its_maximum():
    """Without chance, delays double and stop at the maximum, however many failures there were."""
    retry = Retry(attempts=9, first_delay_s=1, factor=2, max_delay_s=5, chance=lambda: 0)

    assert [retry.delay_s(failures) for failures in (1, 2, 3, 4, 100_000)] == [1, 2, 4, 5, 5]


def test_jitter_only_shortens():
    """Chance takes at most its share off a delay."""
    assert Retry(first_delay_s=1, jitter_ratio=0.5, chance=lambda: 1).delay_s(1) == 0.5


def test_no_attempt_is_no_retry():
    """At least one attempt is needed."""
    with pytest.raises(ValueError, match="attempts"):
        Retry(attempts=0)
