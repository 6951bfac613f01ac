"""The operator's handbook shows the pictures that tests make, and they are small."""

import pytest
from tests.browser.handbook import IMAGES, MOST_BYTES, SHOTS, pictures, quoted


def test_the_handbook_shows_what_the_browser_s_tests_look_at_and_nothing_else() -> None:
    assert sorted(pictures()) == sorted(SHOTS)
    assert sorted(path.name for path in IMAGES.iterdir()) == sorted(f"{name}.png" for name in SHOTS)


@pytest.mark.parametrize("name", SHOTS)
def test_a_picture_is_small_and_its_section_quotes_its_page(name: str) -> None:
    assert (IMAGES / f"{name}.png").stat().st_size < MOST_BYTES
    assert quoted(name) != []
