"""Texts of the Compare room."""

# columns
WHO = "Column {number}: the base, or a run"
BASE = "base"
MORE = "System prompt, examples, strength"
AT = "Which result"
AT_HELP = "What was kept of the run on its way."
SYSTEM_KIND = "System prompt"
SYSTEM_KIND_HELP = "What stands before the question."
SYSTEMS = {"trained": "as the run was trained", "none": "none", "own": "this one"}
SYSTEM_WORDS = "Its words"
SYSTEM_WORDS_HELP = "The base with a good system prompt is what tuning has to beat."
EXAMPLES_SHOWN = "Examples"
EXAMPLES_SHOWN_HELP = "Training rows of the run that are shown before the question."
STRENGTH = "Strength"
STRENGTH_HELP = "How much the adapter counts: 0 is the base, 1 as it was trained."
ADD = "+ Column"
REMOVE = "✕ Remove"

# asking
PROMPT = "Prompt"
PROMPT_HELP = "Enter asks, Shift+Enter begins a new line."
PROMPT_EXAMPLE = "Ask something …"
EXAMPLES = "Examples"
HELD_OUT = "Held-out rows: the model never trained on them."
CONVERSATIONS = "None: the held-out rows are conversations of several turns. Write a question."
REFERENCE = "Reference answer of this row"
DECODING = "System prompt and decoding"
SYSTEM = "System prompt for all columns"
SYSTEM_HELP = "Empty: the run's own, or the template's. A column that has one of its own keeps it."
LENGTH = "Longest answer"
LENGTH_HELP = "In tokens."
TEMPERATURE = "Temperature"
TEMPERATURE_HELP = "0: always the most likely token."
SEED = "Seed"
SEED_HELP = "The same noise for every column."
SEEDS = "Answers a column"
SEEDS_HELP = "By so many seeds, at a temperature above 0; equal ones are shown once."
COMPARE = "Compare"
CANCEL = "Cancel"
MOMENT = "One moment …"
FOLLOW = "Go on with this conversation"
FOLLOW_HELP = "Each column goes on from its own answer. Enter sends, Shift+Enter begins a new line."
FOLLOW_EXAMPLE = "Ask on …"
SEND = "Send"
NEW = "New conversation"
NO_TALK = "There is no conversation yet. Ask something above first."
OTHER_COLUMNS = (
    "The columns, or the system prompt for all of them, are others than those that began this conversation. Press "
    "Compare to begin a new one."
)
EMPTY = "Its answer appears here."

# reading answers
ENDED = {None: "…", "end of turn": "ended by itself", "length": "cut at the length", "cancelled": "cancelled"}
SPEED = "{tokens} tokens in {seconds:.1f} s"
VIEW = "Show"
VIEWS = {"plain": "answers", "diff": "differences", "only": "only differences"}
TOKENS = "How likely each model finds an answer, token by token"
WHOSE = "Whose answer"
READ_TOKENS = "Read it"
TOKENS_HELP = "Base and tuned model read it again and say how much they expected each token."
TOKENS_NO_TURNS = "Read as the answer to the last question alone, without the turns before it."
TOKENS_NO_EXAMPLES = "Read without the examples that were shown before the question."
TOKENS_STRENGTH = "Read by the adapter at strength 1."
NO_RUN_BESIDE = "Choose a run in one of the columns: its base and it read the answer."

COPY, COPY_OF = "Copy", "Copy the answer of {label}"
SEED_OF, SEEDS_OF = "seed {seeds}", "seeds {seeds}"
SAME_WORDS = "= the same words as the first column"
LIKELY = (
    "log p of the answer of {label}: the base gives it {base} nats, {run} {tuned} ({tokens} tokens, its end included)."
)
AS_LIKELY = "Both find it as likely."
TUNED_LIKELIER = "The tuned model finds it {whole} times as likely: {each} times a token."
BASE_LIKELIER = "The base finds it {whole} times as likely: {each} times a token."
TOKEN = "base {base}, tuned {tuned} nats, change {change}"
NO_PROBABILITY = "no probability: nothing stands before it"
LIKELIER, UNLIKELIER = "more likely after tuning", "less likely"
DEEPER = "deeper: by more than 0.1, 1 and 3 nats"
AS_TABLE = "As a table"
TOKEN_HEADS = ("Token", "Base", "Tuned", "Change (nats)")

# a set of prompts
SET = "A set of prompts"
SET_PROMPTS = "Prompts"
SET_PROMPTS_HELP = "One a line; or a table or JSON with a column called prompt."
SET_FILE = "Or a file: CSV, JSONL, text"
SET_RUN = "Answer them all"
SET_ONLY = "Only where they differ"
SET_ONLY_HELP = "From the first column's answer."
SET_MARK = "Mark what differs"
SET_MARK_HELP = "In words, from the first column."
SET_FILES = "As CSV, as JSONL, for LLM Comparator"
SET_NUMBER, SET_PROMPT = "No.", "Prompt"
SET_DIFFER = "{prompts} prompts; answers differ on {differing}"
SET_FAILED = "{failed} could not be answered"
SET_FIRST = "the first {most} are shown here, the files have all"
SET_NONE = "Every answer of the set appears here in a table, with files to take along."

# blind vote
VOTE = "Blind vote"
VOTE_WORDS = (
    "Two answers, sides shuffled, nobody knows whose they are. What is put to the vote is kept beside the runs: "
    "everybody who opens this playground can read these prompts and answers and vote on them."
)
PUT = "Put these answers to the vote"
PUT_SET = "Put this set to the vote"
PUT_DONE = "{count} put to the vote."
VOTE_NEXT = "Vote"
VOTE_NONE = "Nothing is left to vote on. Ask something, then put the answers to the vote."
VOTE_LETTER = "{letter} is better ({key})"
VOTE_TIE = "Tie ({key})"
VOTE_SKIP = "Skip"
VOTE_ANSWER, VOTE_INTERVAL = "answer {letter}", "interval {low:.0f} to {high:.0f} %"
REASON = "Why? (if you like)"
REASON_KEPT = "The reason is kept."
REASON_HELP = "Goes with the vote you have just given."
VOTE_ONE_COLUMN = "There is an answer by one column only. Ask two."
VOTED = {"winner": "Your vote is kept.", "tie": "Your tie is kept.", "skip": "Skipped."}
VOTE_FILES = "Export votes and training rows"
VOTE_FILES_HELP = "votes.csv; rows and pairs of preferred answers as JSONL"
VOTE_HAND = "Take the preferred answers as data"
VOTE_HANDED = "{sentence} They are the data in hand now: go to Train."
VOTE_NO_ROWS = "No vote has a winner yet, so there are no rows. Vote first."

# after the quick adapter
LANDED = (
    "{run} learned in {steps} steps and {duration}, {rows} rows a step out of {of}: an adapter of {millions} million "
    "numbers, {share} of the model, which itself stays as it was."
)
LANDED_FELL = (
    "On {rows} rows that it never saw, its loss fell from {base} (base) to {tuned} nats a token; below, both answer "
    "one of them."
)
LANDED_ROSE = (
    "On {rows} rows that it never saw, its loss did not fall: it went from {base} (base) to {tuned} nats a token; "
    "below, both answer one of them."
)
NOW_OWN = "Now with my data"
MEASURE_IT = "Measure it"
