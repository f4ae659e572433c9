"""Letters of any script are drawn where a font has them, and are never boxes."""

import logging
import warnings

import pytest
from matplotlib.figure import Figure

from dpfc.experiments.pictures import fonts as plot_fonts
from dpfc.experiments.pictures.fonts import drawable, dressed, families, warn_of_letters
from dpfc.experiments.pictures.style import render

# A letter that DejaVu Sans lacks and another font of matplotlib's own has; and one of no font.
SERIF, NOWHERE = "ᴥ", "\U000e0fff"


@pytest.fixture
def fonts(monkeypatch):
    """Only the fonts that matplotlib brings."""
    own = {n: p for n, p in plot_fonts._installed().items() if n.startswith(("DejaVu", "Last"))}
    monkeypatch.setattr(plot_fonts, "_installed", lambda: own)


def drawn(text):
    figure = Figure()
    figure.add_subplot().set_yticks([0, 1], [text, "plain"])
    return figure


def test_a_letter_comes_from_another_font_where_the_usual_one_lacks_it(fonts):
    found = families(f"a{SERIF}")
    assert found[0] == "DejaVu Sans" and len(found) == 2
    assert ord(SERIF) in plot_fonts._letters(found[1])
    assert drawable(f"a{SERIF}") == f"a{SERIF}"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_no_glyph_is_missing_from_a_picture(fonts, kind, caplog):
    with caplog.at_level(logging.WARNING):
        assert render(drawn(f"ε {SERIF}"), kind)
        assert render(drawn(drawable(f"ε {NOWHERE}")), kind)
    assert not caplog.records


def test_a_letter_that_no_font_has_is_written_as_its_number(fonts):
    assert drawable(f"a{NOWHERE}b\nc") == "a\\U000e0fffb\nc"
    assert families(NOWHERE) == ["DejaVu Sans"]  # a font of boxes does not count


def test_missing_letters_are_told_once_with_what_helps(fonts):
    with pytest.warns(UserWarning, match="no font .* has the letters .*Noto Sans CJK") as told:
        warn_of_letters([NOWHERE, f"b{NOWHERE}", "a"])
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_letters(["plain", f"ε {SERIF}"])


def test_pictures_of_latin_letters_keep_their_font(fonts):
    figure = drawn("plain")
    with dressed(figure):
        assert all(
            text.get_fontfamily() == ["sans-serif"] for text in figure.axes[0].get_yticklabels()
        )
