"""What the series say, as Markdown, as a text for a message and as a chart in SVG."""

from __future__ import annotations

from datetime import date, timedelta
from html import escape

from daily import days_of

WIDTH, PANEL_HEIGHT, LEFT, RIGHT, TOP = 720, 120, 70, 20, 30
# Values that are further apart are not joined.
LONGEST_JOIN_DAYS = 14


def number(value: float | None, unit: str, *, signed: bool = False) -> str:
    """Return a value as people read it; seconds as hours and minutes."""
    if value is None:
        return "–"
    sign = "−" if value < 0 else "+" if signed else ""
    value = abs(value)
    if unit == "s":
        minutes = round(value / 60)
        return f"{sign}{minutes // 60}:{minutes % 60:02} h"
    digits = f"{value:,.0f}" if value >= 1000 else f"{value:.1f}".removesuffix(".0")
    return f"{sign}{digits} {unit}".rstrip()


def title(found: dict, all_found: list[dict]) -> str:
    """Return a metric's name; with its source where several have it."""
    name = found["metric"].replace("_", " ")
    is_shared = sum(each["metric"] == found["metric"] for each in all_found) > 1
    return f"{name} ({found['source']})" if is_shared else name


def markdown(described: list[dict], day: date) -> str:
    lines = [f"# Health until {day.isoformat()}", "",
             "| | last | 7 days | 28 days before | change | days missing of 28 | |", "|---|---|---|---|---|---|---|"]
    for found in described:
        unit = found["unit"]
        cells = [title(found, described), f"{number(found['last'], unit)}, {found['last_date']}",
                 number(found["mean_7"], unit), number(found["mean_28"], unit),
                 number(found["change"], unit, signed=True), str(found["missing_28"]), found["record"] or ""]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def message(described: list[dict]) -> str:
    """Return the same as lines of text."""
    lines = []
    for found in described:
        unit = found["unit"]
        if found["mean_7"] is None:
            text = f"last value {found['days_ago']} days ago, {number(found['last'], unit)}"
        else:
            text = number(found["mean_7"], unit)
            text += "" if found["change"] is None else f" ({number(found['change'], unit, signed=True)})"
        record = f", {found['record']} so far" if found["record"] else ""
        lines.append(f"{title(found, described)}: {text}{record}")
    return "\n".join(lines)


def chart(described: list[dict], series: dict, today: date, days: int) -> str:
    """Return a line chart with a panel for each series."""
    height = PANEL_HEIGHT * len(described) + TOP
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
             f'height="{height}" font-family="sans-serif" font-size="12">',
             f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>']
    first = today - timedelta(days=days - 1)
    for index, found in enumerate(described):
        points = sorted((day, value) for day, value in days_of(series[found["series"]]).items() if day >= first)
        parts += _panel(found, title(found, described), points, (first, days), TOP + index * PANEL_HEIGHT)
    parts.append(f'<text x="{LEFT}" y="18" fill="#555">{first.isoformat()} to {today.isoformat()}</text></svg>')
    return "\n".join(parts) + "\n"


def _panel(found: dict, name: str, points: list, span: tuple[date, int], top: float) -> list[str]:
    first, days = span
    bottom, upper = top + PANEL_HEIGHT - 25, top + 22
    parts = [f'<text x="{LEFT}" y="{top + 12}" font-weight="bold">{escape(name)}</text>',
             f'<line x1="{LEFT}" y1="{bottom}" x2="{WIDTH - RIGHT}" y2="{bottom}" stroke="#ccc"/>']
    if not points:
        return parts
    low, high = min(value for _, value in points), max(value for _, value in points)
    for value, y in ((high, upper + 4), (low, bottom + 4)):
        parts.append(f'<text x="{LEFT - 6}" y="{y}" text-anchor="end" fill="#555">'
                     f'{escape(number(value, found["unit"]))}</text>')

    def place(day: date, value: float) -> tuple[float, float]:
        x = LEFT + (day - first).days / max(days - 1, 1) * (WIDTH - LEFT - RIGHT)
        return x, bottom - (value - low) / ((high - low) or 1) * (bottom - upper)

    for run in _runs(points):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in run))
        x, y = place(*run[-1])
        parts.append(f'<polyline points="{path}" fill="none" stroke="#2a6fb0" stroke-width="1.5"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="#2a6fb0"/>')
    return parts


def _runs(points: list) -> list[list]:
    runs: list[list] = []
    for point in points:
        if runs and (point[0] - runs[-1][-1][0]).days <= LONGEST_JOIN_DAYS:
            runs[-1].append(point)
        else:
            runs.append([point])
    return runs
