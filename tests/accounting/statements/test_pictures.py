"""The two pictures: valid XML, safe in a page, and drawn where the profile says."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from statement_examples import planned, searched, state

from dpfc.accounting.profiles import guarantee_profile, mu_profile
from dpfc.accounting.statements.pictures import epsilon_picture, trade_off_picture

PROFILES = {
    "little": (mu_profile(0.01), 0.01, 1e-5),
    "one": (mu_profile(0.268), 1.0, 1e-5),
    "much": (mu_profile(9.0), 70.0, 1e-12),
    "nothing": (mu_profile(0.0), 0.0, 1e-5),
    "no noise": (mu_profile(math.inf), math.inf, 0.0),
    "one pair": (guarantee_profile(1.0, 1e-5), 1.0, 1e-5),
    "large delta": (mu_profile(0.5), 0.1, 0.4),
    "tiny delta": (mu_profile(0.5), 20.0, 1e-300),
}


def number_of(tick: str) -> float:
    """Read an axis label: 10⁻⁸, 0.1%, 1.5."""
    plain = tick.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹−", "-0123456789-"))
    if tick.endswith("%"):
        return float(plain[:-1]) / 100
    power = re.fullmatch(r"10(-?\d+)", plain)
    return 10.0 ** int(power[1]) if power and tick != plain else float(plain)


def points_of(element) -> np.ndarray:
    """Corners of a path of straight lines, in the picture's units: (n, 2)."""
    numbers = re.findall(r"[ML] (\S+) (\S+)", element.get("d"))
    return np.array(numbers, dtype=float)


def axis(root, which: str):
    """Ticks' places and values on an axis: from the picture itself, as a reader would."""
    places, values = [], []
    groups = (g for g in root.iter("g") if re.search(rf"{which}tick_\d+$", g.get("id", "")))
    for group in groups:
        use = next(group.iter("use"))
        places.append(float(use.get(which)))
        values.append(number_of("".join(next(group.iter("text")).itertext())))
    return np.array(places), np.array(values)


def curve(root, *, log_x: bool, log_y: bool):
    """The curve in data units, read against the axes' ticks."""
    (group,) = (g for g in root.iter("g") if g.get("id", "").endswith("-curve"))
    points = points_of(next(group.iter("path")))
    columns = []
    for i, (which, log) in enumerate((("x", log_x), ("y", log_y))):
        places, values = axis(root, which)
        slope, offset = np.polyfit(places, np.log(values) if log else values, 1)
        column = slope * points[:, i] + offset
        columns.append(np.exp(column) if log else column)
    return columns


def both(profile, epsilon, delta):
    return {
        "epsilon": epsilon_picture(profile, epsilon, delta, name="e"),
        "trade-off": trade_off_picture(profile, name="t"),
    }


@pytest.mark.parametrize("name", PROFILES)
def test_pictures_are_one_element_with_title_description_and_no_reach(name):
    for picture, svg in both(*PROFILES[name]).items():
        root = ElementTree.fromstring(svg)
        prefix = "e" if picture == "epsilon" else "t"
        assert root.tag == "svg" and root.get("role") == "img"
        assert {"width", "height"}.isdisjoint(root.attrib) and root.get("viewBox")
        named = {element.get("id"): element for element in root.iter() if element.get("id")}
        labels = [named[key] for key in root.get("aria-labelledby").split()]
        assert [label.tag for label in labels] == ["title", "desc"]
        assert all(label.text for label in labels)
        ids = [element.get("id") for element in root.iter() if element.get("id")]
        assert len(set(ids)) == len(ids) and all(key.startswith(f"{prefix}-") for key in ids)
        for element in root.iter():
            assert element.tag not in {"script", "image", "a", "foreignObject", "metadata"}
            assert element.tag != "style" or not element.text
            for key, value in element.attrib.items():
                assert not key.startswith("on")
                if key == "href":
                    assert value.removeprefix("#") in named
        assert "http" not in svg and "url(" not in re.sub(r"url\(#", "", svg)
        for target in re.findall(r"url\(#([^)]*)\)", svg):
            assert target in named


@pytest.mark.parametrize("name", PROFILES)
def test_every_colour_is_one_of_the_pages(name):
    for svg in both(*PROFILES[name]).values():
        assert not re.findall(r"#0[1-5]0[1-5]0[1-5]", svg)
        colours = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", svg))
        assert colours <= {
            "none",
            "var(--ink)",
            "var(--muted)",
            "var(--rule)",
            "var(--curve)",
            "var(--mark)",
        }


@pytest.mark.parametrize("name", ["little", "one", "much", "one pair", "large delta"])
def test_the_drawn_epsilons_are_the_profiles(name):
    profile, epsilon, delta = PROFILES[name]
    root = ElementTree.fromstring(epsilon_picture(profile, epsilon, delta, name="e"))
    deltas, epsilons = curve(root, log_x=True, log_y=False)
    # Flat parts of a curve are drawn with fewer points.
    assert len(deltas) >= 2 and np.all(np.diff(deltas) > 0)
    top = max(epsilons)
    for d, e in zip(deltas, epsilons, strict=True):
        assert e == pytest.approx(profile.epsilon(float(min(d, 0.5))), abs=0.01 * top)


@pytest.mark.parametrize("name", ["little", "one", "much", "one pair", "nothing"])
def test_the_drawn_attacks_are_the_profiles(name):
    profile, *_ = PROFILES[name]
    root = ElementTree.fromstring(trade_off_picture(profile, name="t"))
    rates, reached = curve(root, log_x=True, log_y=True)
    assert rates[0] == pytest.approx(1e-4, rel=1e-3) and rates[-1] == pytest.approx(1, rel=1e-3)
    for rate, power in zip(rates, reached, strict=True):
        assert power == pytest.approx(profile.true_positive_rate(min(1.0, float(rate))), rel=0.02)


@pytest.mark.parametrize("make", [lambda: state(planned(q=0.1)), searched])
def test_curves_of_sampling_and_search_are_drawn_as_well(make):
    statement = make()
    profile = statement.profile()
    svg = both(profile, statement.target_epsilon, statement.target_delta)
    rates, reached = curve(ElementTree.fromstring(svg["trade-off"]), log_x=True, log_y=True)
    for rate, power in zip(rates[::10], reached[::10], strict=True):
        assert power == pytest.approx(profile.true_positive_rate(min(1.0, float(rate))), rel=0.02)
    deltas, epsilons = curve(ElementTree.fromstring(svg["epsilon"]), log_x=True, log_y=False)
    at_target = np.interp(math.log(statement.target_delta), np.log(deltas), epsilons)
    assert at_target == pytest.approx(profile.epsilon(statement.target_delta), rel=0.02)


def test_the_marked_points_are_told_in_words_as_well():
    svg = trade_off_picture(PROFILES["one"][0], name="t")
    root = ElementTree.fromstring(svg)
    texts = ["".join(text.itertext()) for text in root.iter("text")]
    description = next(root.iter("desc")).text
    for figure in ("0.239%", "1.98%", "15.6%"):
        assert figure in texts and figure in description
    epsilon = ElementTree.fromstring(epsilon_picture(*PROFILES["one"], name="e"))
    texts = ["".join(text.itertext()) for text in epsilon.iter("text")]
    assert any("ε = 1" in text for text in texts) and any("δ = 1e-05" in text for text in texts)
    assert "The target is ε = 1 at δ = 1e-05." in next(epsilon.iter("desc")).text


def test_a_picture_without_a_finite_epsilon_says_so():
    root = ElementTree.fromstring(epsilon_picture(*PROFILES["no noise"], name="e"))
    texts = ["".join(text.itertext()) for text in root.iter("text")]
    assert "ε is infinite at every δ" in texts


def test_a_picture_does_not_depend_on_the_users_matplotlib():
    plain = both(*PROFILES["one"])
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9, "axes.facecolor": "red"}):
        assert both(*PROFILES["one"]) == plain
        assert mpl.rcParams["font.size"] == 30
