"""Texts of the Measure room."""

THIS_RUN = "This run"
METHODS = "Methods compared"

NO_RUN = (
    "No run yet. Train one in Train: then base and tuned model answer rows that nobody trained on, and it says here "
    "whether the tuning was worth it."
)
NOT_READY = "{name} is {status}. It can be measured as soon as it has an adapter."
NOT_MEASURED = "Not measured yet"
NOT_MEASURED_WORDS = (
    "Base and tuned model answer the same held-out rows. Then it says here whether the tuned one is better, how sure "
    "that is, what would do as well without tuning, and what was forgotten on the way."
)
WILL_SAY = (
    ("A verdict", "better, worse, or not enough evidence, in a sentence with its interval"),
    ("Who does as well", "the base with a good prompt, a look-up in the training rows, the most frequent answer"),
    ("What changed", "the rows that gained and lost most; by label, length and word, each bar filtering the others"),
    ("What it cost", "general ability before and after, and whether training rows come out word for word"),
)
OTHER_VERSION = (
    "There is a report that another version of the playground wrote. Measure this run again to read it here."
)

MEASURE = "Measure this run"
GO_ON = "Go on"
STOP = "Stop"
STOPPING = "It stops in a moment; what was answered is kept."
SETTINGS = "What is measured"
ROWS = "Rows"
ROWS_HELP = "Held-out rows that both sides answer. More rows, narrower intervals."
LONGEST = "Longest answer"
LONGEST_HELP = "In tokens; what goes on there is cut."
BY = "Answers are"
BY_CHOICES = {"answer": "written", "likelihood": "the likeliest label"}
BY_HELP = "The likeliest label is for tasks whose answers are few different labels."
AGAINST = "Other runs on the same rows"
AGAINST_HELP = "Measured beside this one; their verdicts are corrected together."
SYSTEM = "Base with a written system prompt"
SYSTEM_HELP = "Would a good instruction do as well? Empty: not asked."
SYSTEM_EXAMPLE = "Answer with …"
EXAMPLES = "Base with examples before the question"
EXAMPLES_HELP = "So many training rows are shown to the base. 0: not asked."
ABILITY = "General ability"
ABILITY_HELP = "160 questions before and after: what was forgotten."
MEMORY = "Memorisation"
MEMORY_HELP = "Do training rows come out word for word?"
SAFETY = "Safety drift"
SAFETY_HELP = "Are harmful requests still declined?"

# how the command line says it, and how one who has the form does
FLAGS = {
    "--max-new-tokens with a higher number reads": "A longer longest answer reads",
    "Measure by written answers: --by answer.": "Choose written answers in What is measured.",
}

STATES = {
    "waiting": "◔ Waiting",
    "measuring": "▶ Measuring",
    "done": "✓ Measured",
    "stopped": "■ Stopped",
    "failed": "✕ Not measured",
    "lost": "? Lost",
}
PART = "part {part} of {parts}: {done} of {rows} rows in all"
PART_LEFT = "part {part} of {parts}: {done} of {rows} rows in all, about {left} left"
GOES_ON = "What was answered is kept: Go on takes it up there."

VERDICT_SIGNS = {"better": "▲", "worse": "▼", "different": "≠", "not enough evidence": "≈"}
TUNED_IS = "Tuned is"
GAIN_WORDS = {
    "better": "▲ better",
    "worse": "▼ worse",
    "different": "≠ different",
    "not enough evidence": "≈ not clear",
}
WHO = "Who answers"
GAIN = "Tuned gains, 95 % interval"
TUNED = "tuned"
BASE = "base"
READING = (
    "Gain is tuned minus the other over the same rows, with its 95 % interval of each alone; one that crosses 0 proves "
    "nothing (not clear)."
)
CHANGE = "Change, 95 % interval"
ALL_FIGURES = "Every figure with its interval"

DIRECTIONS = {True: "", False: " (lower is better)", None: " (neither is better)"}

FORGETTING = "Forgetting"
FORGETTING_LOSS = {
    "worse": "The loss on {n} general instructions rose: ordinary answers became less likely.",
    "better": "The loss on {n} general instructions fell: no forgetting there.",
    "not enough evidence": "The loss on {n} general instructions did not change for sure.",
}
NO_ABILITY = "General questions were not asked."
LUCK = "Is it luck?"
ONE_RUN = "One run, one seed. Another seed would come out a little differently; three seeds show by how much."
SEEDS_BUTTON = "Train it with 3 seeds"
SEEDS_STARTED = "It is trained with two more seeds and measured with each; they appear here as they are done."
SEEDS_STOPPING = "It stops after the step it is in; what is done is kept."
SWEEP_OF = "One of {count} runs that differ in their seed ({done} measured)."
SWEEP_OF_SETTINGS = "One of {count} runs that differ in their seed or their settings ({done} measured)."
DRIFT = "Memorisation and safety"
NOT_LOOKED = "Not looked for: tick Memorisation or Safety drift before measuring."
LIMITS = "What this can't tell"
NO_LIMITS = "Nothing to note on these rows."

CARD_MAKE = "Make the run card"
CARD_HTML = "Download as HTML"
CARD_JSON = "Download as JSON"
CARD_MAKING = "Reading run and data …"
CARD_DONE = "The card of {name} is ready."
TO_COMPARE = "Compare answers by hand"

CHANGED = "What changed"
BY_METRIC = "Score"
ORDERS = {
    "improved": "most improved",
    "worsened": "most worsened",
    "different": "answers differ most",
    "given": "as they stand",
}
ORDER = "Rows"
ALL_ROWS = "all {count} rows"
SOME_ROWS = "{count} of {of} rows"
TALLY = "tuned better on {wins}, worse on {losses}, same on {ties}"
CLEAR = "Show all rows"
REMOVE = "Remove the filter {what}"
NO_ROWS = "No row is left. Remove a filter above."
MORE_ROWS = "Show more rows"
ASK = "Ask this in Compare"
REFERENCE = "Reference"
OTHERS = "What others answer"
WORDS_TUNED = "The tuned model says more often"
WORDS_BASE = "The base says more often"
SAID_TIMES, ROW = "said {base} → {tuned} times", "row {number}"
RULES_COMING = "What rules say of the answers is being read …"
JUDGED = (
    "▲ ▼: tuned wins or loses more rows than luck explains (exact sign test, Holm over {judged} bars; bars of fewer "
    "than {least} rows are not judged)."
)
NOT_JUDGED = "Rows are chosen by how they were answered, so no bar is called better or worse."
NO_METRIC = "No answer to these rows has a score, so there is nothing to filter by."
NO_ANSWERS = "No answers are kept of this measurement: plain text is measured by its loss alone."
OTHER_ROWS = (
    "The rows kept here are of another measurement than the figures above ({rows} rows). Measure again to have both "
    "alike."
)
CUT = "… ({count} more characters)"
LEGEND = "tuned better · same · base better"

LADDER_WORDS = (
    "Train every technique on the same rows, with the same seed and the same number of steps, and read what each costs "
    "and gives. The base is measured on the same held-out rows."
)
LADDER_START = "Start"
LADDER_STOP = "Stop"
LADDER_RESUME = "Go on"
LADDER_STOPPING = "It stops after the step it is in; what is done is kept."
LADDERS = "Ladders"
LADDERS_HELP = "The newest first; each can be gone on with."
LADDER_MODEL = "Base model"
TECHNIQUES = "Techniques"
TECHNIQUES_HELP = "Names beginning with Q stand on a base quantised to 4 bits (NF4)."
NO_TECHNIQUE = "No technique is chosen. Choose at least one."
SHARE_MEASURED = "share of the measurement done"
OF_SEEDS = "{figure} of the tuned model, from the lowest to the highest seed"
LADDER_PAGE = "As a page of its own: {file}"
NO_LADDER = "No ladder is chosen. Start one, or choose one in the list."
LADDER_TEXT = (
    "The data in hand is plain text, and a ladder compares answers. Choose data with prompts and answers in Data."
)
