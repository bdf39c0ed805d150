"""The picture of a policy: an SVG that says in text what its bars show."""

from dataclasses import replace
from xml.etree import ElementTree

from search_spaces.policy import Choice, Policy
from workers.export.policy_picture import draw_policy
from workers.model import load_structure


def test_each_unit_has_a_bar_as_long_as_what_it_keeps(tiny_text):
    structure = load_structure(tiny_text.model)
    names = [unit.name for unit in structure.units]
    policy = Policy({unit.name: Choice(unit.groups, "fp32") for unit in structure.units})
    policy = policy.replace(
        **{names[-1]: Choice(structure.units[-1].groups // 2, "w8a8"), names[-2]: Choice(0, "fp32")}
    )
    root = ElementTree.fromstring(draw_policy(structure, policy))
    tag = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in root.iter(f"{tag}text")]
    assert texts[0::2] == names
    assert texts[-2:] == [names[-1], f"{structure.units[-1].groups // 2}/{structure.units[-1].groups} w8a8"]
    assert "left out" in texts
    widths = [float(bar.get("width", "0")) for bar in root.iter(f"{tag}rect")][1:]
    assert widths[-1] == widths[-2] / 2
    assert widths[-3] == 0


def test_names_do_not_break_out(tiny_text):
    structure = load_structure(tiny_text.model)
    unit = replace(structure.units[0], name="<script>&")
    picture = draw_policy(replace(structure, units=(unit,)), Policy({unit.name: Choice(unit.groups, "fp32")}))
    assert "<script>" not in picture
    assert "&lt;script&gt;&amp;" in picture
