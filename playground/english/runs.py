"""Texts of the Runs room."""

SEARCH = "Search"
SEARCH_HELP = "In names, tags, notes, methods, data, models. In one place: tag:good  status:failed  model:starter"
SEARCH_EXAMPLE = "tickets tag:good"

# the list
COLUMNS = {
    "name": "Run",
    "status": "Status",
    "loss": "Held-out loss",
    "method": "Method, data",
    "started": "Started",
}
PICK = "Pick {name} to compare"
EMPTY = "No run yet. Train one in Train: everything that is trained stands here."
NONE_FITS = "None of {many} fits. Take a word away, or search in one place: tag:good, status:failed."
COUNT = "{many}"
FITTING = "{found} of {many} fit"
CAPPED = "{order} {shown} of {found}: search for others"
ORDERS = {
    "newest": "the newest",
    "oldest": "the oldest",
    "name": "by name, the first",
    "loss": "by held-out loss, the lowest",
}
SORT_HELP = {
    "newest": "Newest first",
    "oldest": "Oldest first",
    "name": "By name",
    "loss": "Lowest held-out loss first",
}
NOTED = "has a note"

# the run that is chosen
NOTHING_CHOSEN = (
    "Press a run to see it here. Pick two or more to see their curves on one picture and what they differ in."
)
NAME, NAME_HELP = "Name", "Kept when you leave it."
TAGS, TAGS_HELP = "Tags", "Commas between them."
NOTE, NOTE_HELP = "Note", "For you and others."
SAVED = "Saved."
OWNERS = {
    "yours": "yours: started in this browser",
    "server": "the server's: from the command line, or from before",
    "another": "another session's: you can look at it, compare it and train one like it",
}
FIXES = "What to do"
RESUME, PAUSE, STOP, AGAIN, COMPARE, DELETE = (
    "Resume",
    "Pause",
    "Stop",
    "Train again with …",
    "Compare answers",
    "Delete",
)
REALLY = "Press again to delete {size}"
DELETED = "{name} is deleted ({size}). It can be restored until deleted runs are removed for good."
UNDO = "Undo"
RESTORED = "{name} is back."
STOPPING = "It stops after the step it is in; the adapter is kept."
PAUSING = "It pauses after the step it is in and keeps its place."
GOES_ON = "It goes on, now or when its turn comes."
RETRIED = "{name} is trained, now or when its turn comes."
RESULT, RESULT_HELP = (
    "The run's result",
    "What answers and is exported: the adapter at the end of this stage. All are kept.",
)
FACTS = {
    "loss": "held-out loss",
    "steps": "steps",
    "method": "method",
    "model": "model",
    "data": "data",
    "rows": "rows",
    "took": "took",
    "size": "on disk",
    "from": "started from",
    "id": "id",
}
ROWS = "{train} to train on, {heldout} held out"

# several runs
RUN, DELETED_RUN = "run", "deleted run"  # counted
BASE, STEP = "base", "step"
PICKED = "{many} picked"
PICK_MORE = "One run is picked. Pick another one to see both on one picture."
TOO_MANY_PICKED = "The first {most} of {many} picked runs are shown. Take some away to see others."
CLEAR = "Pick none"
UNPICK = "Take {name} away"
CURVES = "Held-out loss (nats per token)"
SAME = "They were made with the same settings."
DIFFERENCES = "What they differ in"
SETTING = "Setting"
OTHER_ROWS = (
    "Not all of them were measured on the same held-out rows, so a lower line is not a better run. Compare them in "
    "Measure on the same rows."
)
STAGED = "Runs of several stages measure each stage on rows of its own: their lines jump where a stage begins."
NO_CURVE = "not measured yet"
COMPARE_PICKED = "Compare their answers"
TOO_MANY_TO_COMPARE = (
    "Compare shows {most} runs beside the base, and {many} are picked. Take some away, then press again."
)

# taking along
TAKE = "Take it along"
NO_RESULT = "Nothing yet: the run has no adapter. Its notebook and its command stand here all the same."
KINDS = {
    "notebook": ("Notebook", "Trains exactly this run again in Jupyter: the same settings, rows and seeds."),
    "adapter": ("Adapter", "A zip that PEFT loads beside the base."),
    "merged": ("Merged model", "Base and adapter as one model, safetensors in bfloat16."),
    "gguf-q8_0": ("GGUF, 8 bits", "One file for llama.cpp and LM Studio, half the size of 16 bits."),
    "gguf-f16": ("GGUF, 16 bits", "One file for llama.cpp and LM Studio, unrounded but for f16."),
    "ollama": ("Ollama", "GGUF and a Modelfile with the chat template, the system prompt and the stops."),
    "card": ("Run card", "One page to show: data, settings, curves, result, wins and losses, limits."),
}
DOWNLOAD = "Download"
MAKE = "Make"
MAKING = "Being made: {words}"
AS_CODE = "As code"
COMMAND, COMMAND_HELP = "Command", "Trains exactly this run again in a terminal."
PYTHON, PYTHON_HELP = "Python", "Its configuration, for train_run(Run.create(config))."
TOO_LONG = "# {size} of rows stand in it: take the notebook, which reads them from the run"

# bringing in and taking away
BRING = "Bring an adapter"
BRING_FILE = "An adapter made with PEFT, as a zip"
BRING_MODEL, BRING_MODEL_HELP = "Its base", "The model it was made for: starter, a Hub id, or a folder."
BRING_NAME, BRING_NAME_HELP = "Name", "To recognise it by; empty: the file's."
BRING_BUTTON = "Bring it in"
BRING_NOTHING = "No file is given. Choose the zip of an adapter: adapter_config.json and adapter_model.safetensors."
BROUGHT = "{name} is here: compare it, measure it, export it."
BIN = "Deleted runs"
BIN_EMPTY = "Nothing is deleted."
BIN_COUNT = "{many}, {size} on disk"
RESTORE = "Restore"
EMPTY_BIN = "Remove all for good"
EMPTY_BIN_SURE = "Press again: nothing can be restored then"
EMPTIED = "{size} are free again."
