"""The style sheet of the page that `report` writes: one column on a phone, three on a screen, light and dark."""

from __future__ import annotations

from ductile.ctl.markup import Markup

STYLE = Markup("""
:root { --page: #f4f6f8; --card: #fff; --text: #1b232d; --soft: #5a6675; --line: #dde3ea; --faint: #e9edf2;
  --ok: #3c9d68; --late: #dfa126; --bad: #cf3b34; --off: #9aa5b1; --mark: #3b6fb5; --band: #a9c3e6;
  --alarm: #b3261e; --good: #22794a; }
@media (prefers-color-scheme: dark) {
  :root { --page: #12161b; --card: #1b2129; --text: #e3e8ee; --soft: #98a4b3; --line: #2d3640; --faint: #262e38;
    --ok: #4cae79; --late: #d9a441; --bad: #e5645c; --off: #6b7785; --mark: #7da9e6; --band: #37527a;
    --alarm: #f2837b; --good: #6fcb98; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.45 system-ui, sans-serif;
  -webkit-text-size-adjust: 100%; }
main { max-width: 68rem; margin: 0 auto; padding: 1rem; }
header h1 { margin: .2rem 0 0; font-size: 1.6rem; overflow-wrap: anywhere; }
header p { margin: .1rem 0; color: var(--soft); }
footer { padding: 0 1rem 2rem; text-align: center; color: var(--soft); font-size: .85rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; margin: 1rem 0; }
h2 { margin: 0 0 .6rem; font-size: 1.1rem; }
p { margin: .3rem 0; }
.note, figcaption, small { color: var(--soft); font-size: .85rem; }
.note { margin: -.3rem 0 .6rem; }
.alarm { color: var(--alarm); }
.good { color: var(--good); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .6rem; }
.tile { background: var(--faint); border-radius: .5rem; padding: .5rem .7rem; display: flex; flex-direction: column; }
.tile span { color: var(--soft); font-size: .85rem; }
.tile b { font-size: 1.5rem; font-variant-numeric: tabular-nums; line-height: 1.25; }
.tile.bad b { color: var(--alarm); }
figure { margin: 1rem 0 0; }
figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; margin-bottom: .3rem; }
.legend { display: inline-flex; flex-wrap: wrap; gap: 0 .75rem; }
.legend i { display: inline-block; width: .7rem; height: .7rem; border-radius: .15rem; margin-right: .3rem; }
svg { display: block; width: 100%; overflow: visible; }
svg text { fill: var(--soft); font-size: 11px; text-anchor: middle; }
svg text.first { text-anchor: start; }
svg text.last { text-anchor: end; }
.ok { fill: var(--ok); background: var(--ok); }
.late { fill: var(--late); background: var(--late); }
rect.bad, i.bad { fill: var(--bad); background: var(--bad); }
.off { fill: var(--off); background: var(--off); }
.none { fill: var(--faint); }
.mark { fill: var(--mark); }
.band { fill: var(--band); }
.grid { stroke: var(--line); stroke-width: 1; }
.thick { stroke: var(--mark); stroke-width: 5; stroke-linecap: round; }
.thin { stroke: var(--mark); stroke-width: 1.5; opacity: .7; }
.row { display: grid; grid-template-columns: minmax(0, 13rem) minmax(0, 1fr) minmax(0, 13rem); gap: .2rem 1rem;
  align-items: center; padding: .35rem 0; border-top: 1px solid var(--line); }
.row:first-child { border-top: 0; }
.row.axis { border-top: 0; padding: 0; }
.name { font-weight: 600; overflow-wrap: anywhere; }
.name span { display: block; color: var(--soft); font-weight: 400; font-size: .85rem; }
.figures { font-size: .9rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.figures span { display: block; color: var(--soft); font-size: .85rem; }
.figures span.alarm { color: var(--alarm); }
.cards { list-style: none; margin: 0; padding: 0; }
.problem { border-left: 4px solid var(--bad); background: var(--faint); border-radius: .3rem; padding: .5rem .8rem;
  margin: .6rem 0; overflow-wrap: anywhere; }
.head { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; }
.head span:last-child { color: var(--soft); font-size: .85rem; }
pre { margin: .3rem 0; font: .85rem/1.4 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
code { font: .85rem ui-monospace, monospace; color: var(--soft); }
details pre { max-height: 24rem; overflow: auto; }
summary { cursor: pointer; color: var(--soft); font-size: .85rem; }
.problem .note { margin: .2rem 0; }
@media (max-width: 42rem) {
  main { padding: .6rem; }
  section { padding: .8rem; }
  .tiles { grid-template-columns: 1fr 1fr; }
  .row { grid-template-columns: minmax(0, 1fr) auto; grid-template-areas: "name figures" "chart chart"; }
  .row.axis { grid-template-areas: "chart chart"; }
  .row.axis .name, .row.axis .figures { display: none; }
  .name { grid-area: name; } .chart { grid-area: chart; } .figures { grid-area: figures; text-align: right;
    max-width: 45vw; } }
@media print { body { background: none; } section { break-inside: avoid; } }
""")
