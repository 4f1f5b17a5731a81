"""The page of a report: HTML that needs nothing but itself, whatever the names in it are."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from latentart.printable import printable
from latentart.reporting.thumbnails import Thumbnail

MARK = "<!-- made by latentart report; it may be replaced -->"

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1c1e21; --soft: #5d636b; --line: #d9dce1; --card: #f5f6f8;
  --good: #1a7f37; --bad: #b3261e; --wait: #5d636b; }
@media (prefers-color-scheme: dark) { :root { --ground: #15171a; --ink: #e6e8eb; --soft: #9aa1ab; --line: #33373d;
  --card: #1e2125; --good: #4cc36a; --bad: #ff8a80; --wait: #9aa1ab; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 75rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
p { margin: .5rem 0; } .soft, figcaption { color: var(--soft); font-size: .875rem; }
.verdict { border-left: .3rem solid var(--wait); background: var(--card); padding: .5rem .75rem; margin: 1rem 0; }
.verdict.good { border-color: var(--good); } .verdict.bad { border-color: var(--bad); }
.good b { color: var(--good); } .bad b { color: var(--bad); }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .5rem; margin: 1rem 0; }
.facts div { background: var(--card); padding: .5rem .75rem; }
.facts dt { color: var(--soft); font-size: .8125rem; } .facts dd { margin: 0; font-size: 1.125rem; }
.facts dl { margin: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem; }
figure { margin: 0; min-width: 0; } svg { display: block; width: 100%; height: auto; }
img { display: block; max-width: 100%; height: auto; }
.newest img { max-height: 48rem; width: auto; }
.previews { display: flex; gap: .75rem; margin-top: 1rem; overflow-x: auto; } .previews figure { flex: 0 0 8rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .875rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: normal; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.words { min-width: 16rem; }
summary { cursor: pointer; } pre { overflow-x: auto; background: var(--card); padding: .75rem; font-size: .8125rem;
  white-space: pre-wrap; }
"""
_HEAD = """<!DOCTYPE html>
{mark}
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
"""


@dataclass(frozen=True)
class Preview:
    """A small copy of a page of previews, and the step it was drawn at."""

    step: int
    picture: Thumbnail


@dataclass(frozen=True)
class Page:
    """All that a page shows, as plain values.

    Attributes:
        verdict: its word, evidence and advice. verdicts: rows of those so far. facts, machine: names and values.
        charts: SVG of ours, by the sentence below it. notes: sentences about what could not be read.
        scores: rows of (name, value) of one evaluation each. log: its last lines. config: as text.
    """

    title: str
    subtitle: str
    verdict: tuple[str, str, str] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    last_preview: Preview | None = None
    previews: Sequence[Preview] = ()
    charts: Mapping[str, str] = field(default_factory=dict)
    verdicts: Sequence[Sequence[str]] = ()
    scores: Sequence[Mapping[str, str]] = ()
    machine: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    log: Sequence[str] = ()
    notes: Sequence[str] = ()


def render(page: Page) -> str:
    """Return the page; every name and number in it is escaped, and only the charts are taken as they are."""
    parts = [
        _HEAD.format(mark=MARK, title=escape(page.title), style=_STYLE),
        f'<main>\n<h1>{escape(page.title)}</h1>\n<p class="soft">{escape(page.subtitle)}</p>\n',
        _render_verdict(page.verdict),
        _render_facts(page.facts),
        *(f'<p class="soft">{escape(note)}</p>\n' for note in page.notes),
        _section("Curves", _render_charts(page.charts)),
        _section("Previews", _render_previews(page)),
        _section("Verdicts", _render_verdicts(page.verdicts)),
        _section("Scores", _render_scores(page.scores)),
        _section("Machine", _render_table([], [[name, value] for name, value in page.machine.items()])),
        _section("Log", _render_text("The last lines", "\n".join(page.log))),
        _section("Config", _render_text("As it was resolved for this run", page.config)),
        "</main>\n</body>\n</html>\n",
    ]
    return "".join(parts)


def escape(text: str) -> str:
    """Return text that means nothing to a browser, not as content and not as an attribute."""
    return html.escape(printable(text), quote=True)


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}</section>\n" if body else ""


def tone(kind: str) -> str:
    """Return how a verdict's word is colored."""
    return {"learning": "good", "too early": "wait"}.get(kind, "bad")


def _render_verdict(verdict: tuple[str, str, str] | None) -> str:
    if verdict is None:
        return ""
    kind, evidence, advice = verdict
    shown = f"<p><b>{escape(kind.capitalize())}</b>: {escape(evidence)}.</p>\n<p>{escape(advice)}</p>"
    return f'<div class="verdict {tone(kind)}">\n{shown}\n</div>\n'


def _render_facts(facts: Mapping[str, str]) -> str:
    rows = (f"<div><dl><dt>{escape(name)}</dt><dd>{escape(value)}</dd></dl></div>\n" for name, value in facts.items())
    return f'<div class="facts">\n{"".join(rows)}</div>\n' if facts else ""


def _render_previews(page: Page) -> str:
    if page.last_preview is None:
        return ""
    last = f'<div class="newest">\n{_render_picture(page.last_preview, "the newest page of previews")}</div>\n'
    older = "".join(_render_picture(preview, "a page of previews") for preview in page.previews)
    return f'{last}<div class="previews" tabindex="0">\n{older}</div>\n' if older else last


def _render_picture(preview: Preview, what: str) -> str:
    picture, step = preview.picture, f"step {preview.step:,}"
    size = f'width="{picture.width}" height="{picture.height}"'
    image = f'<img src="{html.escape(picture.address)}" {size} alt="{escape(f"{what}, {step}")}">'
    return f"<figure>\n{image}\n<figcaption>{escape(step)}</figcaption>\n</figure>\n"


def _render_charts(charts: Mapping[str, str]) -> str:
    shown = (
        f"<figure>\n{svg}\n<figcaption>{escape(caption)}</figcaption>\n</figure>\n" for caption, svg in charts.items()
    )
    return f'<div class="charts">\n{"".join(shown)}</div>\n' if charts else ""


def _render_verdicts(rows: Sequence[Sequence[str]]) -> str:
    return _render_table(["steps", "verdict", "evidence"], rows) if rows else ""


def _render_scores(scores: Sequence[Mapping[str, str]]) -> str:
    names = list(dict.fromkeys(name for row in scores for name in row))
    return _render_table(names, [[row.get(name, "") for name in names] for row in scores]) if names else ""


def _render_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    top = f"<thead><tr>{top}</tr></thead>\n" if head else ""
    body = "".join(f"<tr>{''.join(map(_render_cell, row))}</tr>\n" for row in rows)
    return f'<div class="wide" tabindex="0">\n<table>\n{top}<tbody>\n{body}</tbody>\n</table>\n</div>\n'


def _render_cell(text: str) -> str:
    kind = ' class="words"' if len(text) > 60 else ""
    return f"<td{kind}>{escape(text)}</td>"


def _render_text(summary: str, text: str) -> str:
    lines = "\n".join(map(escape, text.split("\n")))
    return f"<details>\n<summary>{escape(summary)}</summary>\n<pre>{lines}</pre>\n</details>\n" if text.strip() else ""
