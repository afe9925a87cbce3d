"""A statement as PDF: for a person to read, to print, and to hand on.

Laid out first, so that every page knows how many there are, then drawn. Lengths are in points.
"""

import io
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

import font_source_sans_pro
from reportlab.lib.colors import Color, HexColor
from reportlab.lib.pagesizes import A4
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from rest_framework.exceptions import ErrorDetail, ValidationError

from transactions.models import Transaction
from transactions.statements import Line, Statement, lines_of

LINES_MAX = 5_000
BRAND = "Fintech Core"

PAGE_WIDTH, PAGE_HEIGHT = A4
MARGIN = 48.0
LEFT, RIGHT = MARGIN, PAGE_WIDTH - MARGIN
WIDTH = RIGHT - LEFT
BOTTOM = 62.0  # the footer lies below
DETAILS = LEFT + 84
AMOUNT = RIGHT - 92  # right edges of the two columns of money
BALANCE = RIGHT
DETAILS_WIDTH = AMOUNT - 84 - DETAILS

INK = HexColor("#16202e")
SOFT = HexColor("#5b6779")
FAINT = HexColor("#7d8797")
RULE = HexColor("#dfe4ea")
PAPER = HexColor("#f4f6f9")
ACCENT = HexColor("#1c4f8c")
GAIN = HexColor("#17704a")

SEALED = (
    "The seal is a fingerprint (SHA-256) of the wallet's whole history up to the closing balance. "
    "Keep it: if anything in that history were ever changed, its seal would be another one."
)
GLYPHS_MISSING = (
    "Boxes stand for characters that the typeface of this document does not have. The statement as "
    "CSV or JSON has them all."
)
_MINUS = "\u2212"
_FALLBACK_TITLES = {
    Transaction.Type.DEPOSIT: "Deposit",
    Transaction.Type.WITHDRAWAL: "Withdrawal",
    Transaction.Type.ADJUSTMENT: "Adjustment",
    Transaction.Type.REVERSAL: "Reversal",
}


def as_pdf(statement: Statement) -> bytes:
    """The whole document. Raises ValidationError for more than `LINES_MAX` lines."""
    if statement.count > LINES_MAX:
        refusal = f"A PDF holds up to {LINES_MAX} lines, this has {statement.count}: ask for csv."
        raise ValidationError({"format": [ErrorDetail(refusal, code="too_many_lines")]})
    _register_fonts()
    return _Document(statement).written()


# --- Type ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Style:
    font: str
    size: float
    colour: Color = INK

    def width(self, text: str) -> float:
        return float(pdfmetrics.stringWidth(text, self.font, self.size))


REGULAR, SEMIBOLD, BOLD = "SourceSans", "SourceSans-Semibold", "SourceSans-Bold"
_FILES = {REGULAR: "Regular", SEMIBOLD: "Semibold", BOLD: "Bold"}

TITLE = Style(SEMIBOLD, 21)
BRANDED = Style(BOLD, 10.5, ACCENT)
HOLDER = Style(SEMIBOLD, 12)
LABEL = Style(REGULAR, 8, SOFT)
TEXT = Style(REGULAR, 9.5)
FIGURE = Style(SEMIBOLD, 13)
HEADING = Style(SEMIBOLD, 8, SOFT)
ROW = Style(REGULAR, 9.5)
ROW_BOLD = Style(SEMIBOLD, 9.5)
GAINED = Style(REGULAR, 9.5, GAIN)
NOTE = Style(REGULAR, 8, SOFT)
TINY = Style(REGULAR, 6.5, FAINT)
SMALL = Style(REGULAR, 7.5, SOFT)
SEAL = Style("Courier", 9)


@lru_cache(maxsize=1)
def _register_fonts() -> None:
    """Once a process; each document embeds only the characters that it uses."""
    folder = Path(font_source_sans_pro.font_directory)
    for name, weight in _FILES.items():
        pdfmetrics.registerFont(TTFont(name, str(folder / f"SourceSansPro-{weight}.ttf")))


def _can_draw(text: str) -> bool:
    glyphs = pdfmetrics.getFont(REGULAR).face.charToGlyph
    return all(ord(character) in glyphs for character in text)


def clean(text: str) -> str:
    """One line, composed: no line breaks, and nothing invisible that turns the text around."""
    composed = unicodedata.normalize("NFC", text)
    kept = (character for character in composed if unicodedata.category(character) != "Cf")
    return " ".join("".join(kept).split())


def wrap(text: str, style: Style, width: float) -> list[str]:
    """Lines no wider than `width`; a word that is wider by itself is broken."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".lstrip()
        if style.width(longer) <= width:
            lines[-1] = longer
            continue
        *full, rest = _broken(word, style, width)
        lines += [*full, rest]
    return [line for line in lines if line]


def _broken(word: str, style: Style, width: float) -> Iterator[str]:
    part, reached = "", 0.0
    for character in word:
        advance = style.width(character)  # the typeface is drawn without kerning
        if part and reached + advance > width:
            yield part
            part, reached = "", 0.0
        part, reached = part + character, reached + advance
    yield part


def money(amount: Decimal) -> str:
    return f"{amount:,.2f}".replace("-", _MINUS)


def signed(amount: Decimal) -> str:
    return f"+{money(amount)}" if amount > 0 else money(amount)


def day(value: date) -> str:
    return f"{value.day} {value:%b %Y}"


# --- Layout --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """A line, broken into what is drawn."""

    day: str
    clock: str
    title: list[str]
    description: list[str]
    reference: str
    amount: Decimal
    balance: Decimal

    @property
    def height(self) -> float:
        return 19.5 + 12 * (len(self.title) - 1) + 10 * len(self.description) + 8.5


def row_of(line: Line, statement: Statement) -> Row:
    local = line.created_at.astimezone(statement.period.zone)
    return Row(
        day=day(local),
        clock=f"{local:%H:%M:%S %Z}",
        title=wrap(title_of(line), ROW, DETAILS_WIDTH),
        description=wrap(clean(line.description), NOTE, DETAILS_WIDTH),
        reference=line.reference_id,
        amount=line.amount,
        balance=line.balance_after,
    )


def title_of(line: Line) -> str:
    """What it was and with whom, such as "Transfer to Bob T."."""
    kind = Transaction.Type(line.type)
    name = clean(line.counterparty.display_name) if line.counterparty else ""
    if not name:
        return _FALLBACK_TITLES.get(kind, str(kind.label))
    return f"{kind.label} {'from' if line.direction == 'in' else 'to'} {name}"


@dataclass
class _Totals:
    """What came in and went out, in how many lines."""

    arrived: Decimal = Decimal("0.00")
    left: Decimal = Decimal("0.00")
    arrivals: int = 0
    departures: int = 0

    def add(self, amount: Decimal) -> None:
        if amount > 0:
            self.arrived, self.arrivals = self.arrived + amount, self.arrivals + 1
        else:
            self.left, self.departures = self.left + amount, self.departures + 1


class _Document:
    """Read to the end before a page is drawn, so what is drawn adds up."""

    def __init__(self, statement: Statement) -> None:
        self.statement = statement
        owner = statement.wallet.user
        self.holder = clean(owner.get_full_name()) or owner.email
        self.totals = _Totals()
        is_over = statement.period.ends_at <= statement.made_at
        self.closing_label = "Closing balance" if is_over else "Balance so far"
        self.is_complete = _can_draw(self.holder)
        self.rows = [self._row(line) for line in lines_of(statement)]
        self.file = io.BytesIO()
        self.canvas = Canvas(self.file, pagesize=A4, pageCompression=1, lang="en")
        self.y = PAGE_HEIGHT - MARGIN
        self.brought = statement.opening.balance

    def _row(self, line: Line) -> Row:
        self.totals.add(line.amount)
        row = row_of(line, self.statement)
        drawn = "".join((*row.title, *row.description))
        self.is_complete = self.is_complete and _can_draw(drawn)
        return row

    def written(self) -> bytes:
        self._describe()
        pages = self._paginated()
        for number, rows in enumerate(pages, start=1):
            self._page(rows, number, len(pages))
            self.canvas.showPage()
        self.canvas.save()
        return self.file.getvalue()

    def _describe(self) -> None:
        period = self.statement.period
        self.canvas.setTitle(f"Statement {period.first} to {last_day(self.statement)}")
        self.canvas.setAuthor(BRAND)
        self.canvas.setSubject(f"Wallet {self.statement.wallet.pk}")
        self.canvas.setCreator(BRAND)
        self.canvas.setProducer(BRAND)

    # --- Which rows stand on which page

    def _paginated(self) -> list[list[Row]]:
        """Rows in order, filling pages; what ends the statement has room on the last one."""
        pages: list[list[Row]] = [[]]
        room = self._room_first()
        for row in self.rows:
            if row.height > room:
                pages.append([])
                room = _ROOM_LATER
            pages[-1].append(row)
            room -= row.height
        if self._ending_height() > room:
            pages.append([])
        return pages

    def _room_first(self) -> float:
        return PAGE_HEIGHT - MARGIN - self._head_height() - _TABLE_HEAD - _BALANCE_ROW - BOTTOM

    def _head_height(self) -> float:
        return 172.0 + 15 * (len(self._holder_lines()) - 1)

    def _holder_lines(self) -> list[str]:
        return wrap(self.holder, HOLDER, WIDTH / 2 - 16)

    def _ending_height(self) -> float:
        seal = _SEAL_BOX if self.statement.seal else 0
        return _BALANCE_ROW + 14 + seal + 10 * len(self._glyph_note())

    def _glyph_note(self) -> list[str]:
        return [] if self.is_complete else wrap(GLYPHS_MISSING, NOTE, WIDTH)

    # --- Drawing

    def _page(self, rows: list[Row], number: int, pages: int) -> None:
        self.y = PAGE_HEIGHT - MARGIN
        if number == 1:
            self._head()
        else:
            self._running_head()
        self._table_head()
        self._balance_row("Opening balance" if number == 1 else "Brought forward", self.brought)
        if not self.rows:
            self._nothing_moved()
        for row in rows:
            self._draw(row)
            self.brought = row.balance
        if number == pages:
            self._ending()
        self._footer(number, pages)

    def _head(self) -> None:
        top = self.y
        self._text(LEFT, top - 9, BRAND, BRANDED)
        self._text(LEFT, top - 42, "Account statement", TITLE)
        self._right(RIGHT, top - 42, self._period_text(), HOLDER)
        self._line(top - 54, ACCENT, 1.2)
        self._parties(top - 72)
        self._figures(top - self._head_height() + 58)
        self.y = top - self._head_height()

    def _parties(self, top: float) -> None:
        self._text(LEFT, top, "Account holder", LABEL)
        for number, part in enumerate(self._holder_lines()):
            self._text(LEFT, top - 15 - 15 * number, part, HOLDER)
        facts = [
            ("Wallet", str(self.statement.wallet.pk)),
            ("Currency", self.statement.wallet.currency),
            ("Times in", self.statement.period.zone.key),
        ]
        for number, (label, fact) in enumerate(facts):
            y = top - 13.5 * number
            self._text(LEFT + WIDTH / 2, y, label, LABEL)
            self._text(LEFT + WIDTH / 2 + 48, y, fact, Style(REGULAR, 8.5))

    def _period_text(self) -> str:
        first, last = self.statement.period.first, last_day(self.statement)
        return day(first) if first == last else f"{day(first)} \u2013 {day(last)}"

    def _figures(self, top: float) -> None:
        totals, statement = self.totals, self.statement
        figures = [
            ("Opening balance", money(statement.opening.balance)),
            (f"Money in ({totals.arrivals:,})", signed(totals.arrived)),
            (f"Money out ({totals.departures:,})", money(totals.left)),
            (self.closing_label, money(statement.closing.balance)),
        ]
        gap, height = 8.0, 42.0
        box = (WIDTH - 3 * gap) / 4
        for number, (label, figure) in enumerate(figures):
            x, last = LEFT + number * (box + gap), number == 3
            self.canvas.setFillColor(ACCENT if last else PAPER)
            self.canvas.roundRect(x, top - height, box, height, 4, stroke=0, fill=1)
            colour = HexColor("#ffffff")
            self._text(x + 9, top - 15, label, Style(REGULAR, 8, colour) if last else LABEL)
            style = _fitting(figure, FIGURE, box - 18)
            self._text(
                x + 9, top - 32, figure, Style(style.font, style.size, colour) if last else style
            )

    def _running_head(self) -> None:
        self._text(LEFT, self.y - 9, BRAND, BRANDED)
        room = RIGHT - LEFT - 90
        name = _cut(f"{self.holder}  \u00b7  ", NOTE, room - NOTE.width(self._period_text()))
        self._right(RIGHT, self.y - 9, name + self._period_text(), NOTE)
        self._line(self.y - 17, ACCENT, 1.2)
        self.y -= _RUNNING_HEAD

    def _table_head(self) -> None:
        y = self.y - 12
        self._text(LEFT, y, "Date", HEADING)
        self._text(DETAILS, y, "Details", HEADING)
        self._right(AMOUNT, y, "Amount", HEADING)
        self._right(BALANCE, y, f"Balance in {self.statement.wallet.currency}", HEADING)
        self._line(y - 6, INK, 0.7)
        self.y -= _TABLE_HEAD

    def _balance_row(self, label: str, balance: Decimal) -> None:
        self._text(DETAILS, self.y - 14, label, ROW_BOLD)
        self._right(BALANCE, self.y - 14, money(balance), ROW_BOLD)
        self.y -= _BALANCE_ROW
        self._line(self.y, RULE, 0.5)

    def _nothing_moved(self) -> None:
        self._text(DETAILS, self.y - 14, "Nothing moved in this period.", NOTE)
        self.y -= _BALANCE_ROW
        self._line(self.y, RULE, 0.5)

    def _draw(self, row: Row) -> None:
        y = self.y - 13.5
        self._text(LEFT, y, row.day, ROW)
        self._text(LEFT, y - 10, row.clock, SMALL)
        self._right(AMOUNT, y, signed(row.amount), GAINED if row.amount > 0 else ROW)
        self._right(BALANCE, y, money(row.balance), ROW)
        for number, part in enumerate(row.title):
            self._text(DETAILS, y - 12 * number, part, ROW)
        y -= 12 * (len(row.title) - 1) + 10
        for part in row.description:
            self._text(DETAILS, y - 0.5, part, NOTE)
            y -= 10
        self._text(DETAILS, y, row.reference, TINY)
        self.y -= row.height
        self._line(self.y, RULE, 0.5)

    def _ending(self) -> None:
        self._balance_row(self.closing_label, self.statement.closing.balance)
        self._line(self.y, INK, 0.7)
        self.y -= 14
        if self.statement.seal:
            self._seal()
        for number, part in enumerate(self._glyph_note(), start=1):
            self._text(LEFT, self.y - 10 * number, part, NOTE)

    def _seal(self) -> None:
        top, height = self.y, _SEAL_BOX - 10
        self.canvas.setFillColor(PAPER)
        self.canvas.roundRect(LEFT, top - height, WIDTH, height, 4, stroke=0, fill=1)
        label = f"Seal of entry {self.statement.closing.sequence:,}"
        self._text(LEFT + 10, top - 15, label, HEADING)
        self._text(LEFT + 10, top - 29, self.statement.seal.hex(), SEAL)
        for number, part in enumerate(wrap(SEALED, SMALL, WIDTH - 20)):
            self._text(LEFT + 10, top - 42 - 9.5 * number, part, SMALL)
        self.y -= _SEAL_BOX

    def _footer(self, number: int, pages: int) -> None:
        made = self.statement.made_at.astimezone(self.statement.period.zone)
        self._line(BOTTOM - 16, RULE, 0.5)
        generated = f"Generated {day(made)}, {made:%H:%M:%S %Z}"
        self._text(
            LEFT, BOTTOM - 28, f"{generated}  \u00b7  Wallet {self.statement.wallet.pk}", SMALL
        )
        self._right(RIGHT, BOTTOM - 28, f"Page {number} of {pages}", SMALL)

    def _text(self, x: float, y: float, text: str, style: Style) -> None:
        self.canvas.setFont(style.font, style.size)
        self.canvas.setFillColor(style.colour)
        self.canvas.drawString(x, y, text)

    def _right(self, x: float, y: float, text: str, style: Style) -> None:
        self._text(x - style.width(text), y, text, style)

    def _line(self, y: float, colour: Color, thickness: float) -> None:
        self.canvas.setStrokeColor(colour)
        self.canvas.setLineWidth(thickness)
        self.canvas.line(LEFT, y, RIGHT, y)


_TABLE_HEAD = 19.0
_SEAL_BOX = 70.0
_BALANCE_ROW = 21.0
_RUNNING_HEAD = 26.0
_ROOM_LATER = PAGE_HEIGHT - MARGIN - _RUNNING_HEAD - _TABLE_HEAD - _BALANCE_ROW - BOTTOM


def last_day(statement: Statement) -> date:
    """People name the last day; the period ends with the day after it."""
    return statement.period.end - timedelta(days=1)


def _fitting(text: str, style: Style, width: float) -> Style:
    """The style, smaller if that is what it takes."""
    shrunk = min(1.0, width / style.width(text))
    return Style(style.font, style.size * shrunk, style.colour)


def _cut(text: str, style: Style, width: float) -> str:
    """The text, shortened if that is what it takes."""
    return next(_broken(text, style, width))
