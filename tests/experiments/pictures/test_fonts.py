"""Letters of any script are drawn where a font has them, and are never boxes."""

import warnings

import pytest

from dpfc.experiments.pictures import fonts as plot_fonts
from dpfc.experiments.pictures.fonts import drawable, families, warn_of_letters
from dpfc.experiments.pictures.study import render_chart

# A letter that DejaVu Sans lacks and another font of matplotlib's own has; and one of no font.
SERIF, NOWHERE = "ᴥ", "\U000e0fff"


@pytest.fixture
def fonts(monkeypatch):
    """Only the fonts that matplotlib brings."""
    own = {n: p for n, p in plot_fonts._installed().items() if n.startswith(("DejaVu", "Last"))}
    monkeypatch.setattr(plot_fonts, "_installed", lambda: own)


def drawn(text):
    """A picture with a text, as SVG."""
    values = {"data": {"values": [{"text": text}]}}
    chart = {**values, "mark": "text", "encoding": {"text": {"field": "text"}}}
    return render_chart(chart, "svg").decode()


def test_a_letter_comes_from_another_font_where_the_usual_one_lacks_it(fonts):
    found = families(f"a{SERIF}")
    assert found[0] == "DejaVu Sans" and len(found) == 2
    assert ord(SERIF) in plot_fonts._letters(found[1])
    assert drawable(f"a{SERIF}") == f"a{SERIF}"


def test_a_picture_names_the_fonts_of_its_letters_and_numbers_those_of_none(fonts):
    assert f">ε {SERIF}<" in drawn(f"ε {SERIF}")
    assert f'font-family="{", ".join(families(SERIF))}"' in drawn(f"ε {SERIF}")
    assert "\\U000e0fff" in drawn(NOWHERE) and NOWHERE not in drawn(NOWHERE)


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
    assert 'font-family="DejaVu Sans"' in drawn("plain")
