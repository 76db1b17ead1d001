"""Texts of the Data room."""

SOURCE = "Where the rows come from"
SOURCE_HELP = "Choose, and everything else follows by itself; a file stays on this machine."
KINDS = {
    "builtin": "Built-in",
    "file": "File",
    "paste": "Paste",
    "hub": "Hub",
    "handed": "Notebook",
}
FILE = "CSV, JSON, JSONL, Parquet, Excel, text, or a zip"
PASTE = "Rows, pasted"
PASTE_HELP = "A table with a header, JSON, JSON lines or plain text: what it is, is found out."
PASTE_EXAMPLE = "question,answer\nWhere is my parcel?,With the carrier; it comes tomorrow."
BUILTIN_SETS, CARD_ROWS = "built-in sets", "{rows} rows"
HUB = "Data set"
HUB_HELP = "Its id on the Hub. It is fetched when you press the button."
HUB_EXAMPLE = "owner/name"
HUB_BUTTON = "Fetch"
SUBSET = "Subset"
SPLIT = "Split"
HUB_PART_HELP = "Empty: the only one, or train."
HUB_WRONG = (
    "'{value}' is no id of a data set. Write it as owner/name, e.g. PolyAI/banking77; a file of your own is given "
    "under “File”."
)
HANDED = "Handed over"
HANDED_HELP = "The newest first."
HANDED_NONE = "Hand rows over in a notebook on this machine:"
HANDED_CODE = 'import tunelab\ntunelab.hand_over(frame, "tickets")'
HANDED_AFTER = "where frame is a DataFrame, a data set or a list of dicts. Press “Look again” then."
HANDED_GONE = "These rows are not there any more. Hand them over again."
RELOAD = "Look again"

LEARN = "What the rows are"
LEARN_HELP = "Of questions and answers, the answers are learned; of plain text, every word."
LEARNS = {"instructions": "questions and answers", "text": "plain text"}
ROLES = {
    "prompt": ("Asked", "The column with what is asked."),
    "completion": ("Learned", "The column with the answer."),
    "messages": ("Turns", "The column that holds whole conversations."),
    "text": ("Text", "The column with the text."),
    "input": ("Asked as well", "Stands under what is asked."),
    "context": ("Context", "Stands under what is asked."),
    "system": ("System prompt", "A column with one for each row."),
    "history": ("Earlier turns", "Stand before what is asked."),
    "choices": ("Choices", "Of which the answer names one; several columns with commas between."),
    "label": ("Whether to learn it", "Rows in which it says no are left out."),
    "group": ("Belongs together", "Rows of one customer or document stay on one side of the split."),
}
PROPOSED = "{column} · proposed"
NOT_USED = "not used"
MORE_COLUMNS = "Template, system prompt, labels and other columns"
TEMPLATE = "Prompt template"
SYSTEM = "System prompt for every row"
LABELS = "Words for labels"
LABELS_HELP = "One a line, e.g. 0 = ham. A model learns words better than numbers."
LABELS_WRONG = "Line {line} of the words for labels, '{text}': write label = word, e.g. 0 = ham."
HEADER = "First line of the table"
HEADERS = {"auto": "found out", "first row": "the columns' names", "none": "a row already"}
LIMIT = "At most"
LIMIT_HELP = "Rows to train on; empty: all."
HELDOUT_PART = "Held-out rows"
HELDOUT = "Held out"
HELDOUT_HELP = "Rows that are never trained on: what tuning is worth is measured on them."
HELDOUTS = {"auto": "by itself", "amount": "so many", "file": "a file of its own"}
AMOUNT = "How many"
AMOUNT_HELP = "A share below 1 (0.1), or a number of rows (200)."
SEED = "Seed"
SEED_HELP = "Another one draws other rows."
HELDOUT_FILE = "Held-out rows"
NO_HELDOUT_FILE = "No file of held-out rows is given. Choose one below, or have rows held out by themselves."
NO_AMOUNT = "How many rows are held out is empty. Write a share below 1, e.g. 0.1, or a number of rows, e.g. 200."

TRAIN = "Train on this data"
READ_AGAIN = "Something was changed, and the rows are being read again. Press when they have been."
NOTHING_YET = "Choose rows on the left. They stand here as the model reads them, with what is wrong with them."
RAW = "The first rows as they stand in their source, not yet as the model reads them."
RAW_CUT = "{text} … and {count} more characters"
RAW_MORE = "… and {count} more columns"
READING = "Reading the rows …"
READING_MORE = "Reading all rows: {words}"
FIRST_ONLY = "The first rows, while all are being read."
JUDGING = "Counting tokens …"
EXAMINING = "Looking for what is wrong …"
EXAMINING_MORE = "Looking for what is wrong: {words}"
SUMMARY = "{train} to train on, {heldout} held out"
TO_TRAIN, HELD_OUT, MEASURED_BY = "to train on", "held out", "measured by"
BROKEN = "{rows} left out, as they can't be read: {places}"
BROKEN_MORE = "… and {count} more"
BLOCKED = "Not yet: the rows can't be read as chosen. What is wrong stands on the left."
ASKED_WITHOUT_ANSWER = "not used: {columns}"

ROWS = "Rows"
FINDINGS = "Findings"
FINDINGS_COUNTED = "Findings ({count})"
PICTURES = "Pictures"
DIVISION = "Split"
NEXT, BACK = "Next rows", "Rows before"
LEGEND_LEARNED, LEGEND_READ, LEGEND_CUT, LEGEND_END = "learned", "only read", "cut away", "end of a turn"
END_OF_TURN, END_LEARNED = "end of turn", "end of turn, learned"
ROW_HEADING = "row {number}: {tokens} tokens, {learned} of them learned"
ROW_COUNTED = "row"
TOKEN_PART = "a part of the next character"
TOKENS_LEFT_OUT, TOKENS_CUT = "{count} tokens are not shown …", "and {count} more tokens that are cut away"
SEVERITIES = {"high": ("▲", "serious"), "medium": ("●", "worth mending"), "low": ("○", "good to know")}
APPLY = "Mend: {does}"
UNDO = "Undo"
MENDED = "Mended"
NO_FINDINGS = "✓ Nothing to mend was found."
NOT_EXAMINED = "What is wrong with the rows stands here once they have been read."
EXAMPLE_ROWS = "Rows, for example"
ROW, HELDOUT_ROW = "row {number}", "held-out row {number}"
LABELS_TITLE = "Rows of each label"
LABELS_BAR = "{label}: {train} to train on, {heldout} held out"
LENGTHS = "Tokens of {many} ({words})"
LENGTHS_BAR, LENGTHS_LIMIT = "{many} of {low} to {high} tokens", "max_length {limit}"
LABELS_MORE = "and {count} more labels"
NO_PICTURES = "How long rows are, and how often each label stands, is drawn here once the rows have been read."
HOW_DIVIDED = "How they are divided"
DRAWN = "Held-out rows are drawn by seed {seed}; rows that ask the same stay on one side."
DRAWN_LABELS = (
    "Held-out rows are drawn by seed {seed}, of every label its share; rows that ask the same stay on one side."
)
OWN_PART = "The data has held-out rows of its own: none is drawn from the others."
READ_SO = "How they were read"
NOTHING_LEFT_OUT = "Every row is used."
UNUSED_ROWS = "{count} rows beyond the limit are not used."
USE = "Use {pairs}"
USE_TEXT = "Read as plain text"
USE_NO_HEADER = "Take the first line as a row"
USE_PAIR = "“{column}” as {role}"
COLUMNS_THERE = "Columns there: {columns}."
