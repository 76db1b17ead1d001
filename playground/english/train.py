"""Texts of the Train room."""

CHANGE_DATA = "Change"
PACE = "How long"
PACE_HELP = "Sets steps, checks and protection against forgetting; each can be changed below."
PACES = {"quick": "quick", "balanced": "balanced", "careful": "careful", "own": "as set below"}
TECHNIQUE = "Technique"
TECHNIQUE_HELP = "What of the model is trained."
ALL_SETTINGS = "All settings"
FORGETTING = "Against overfitting and forgetting"
MORE = "More settings"
MORE_OF = "More about {technique}"
ADD_STAGE = "Add as a stage"
CLEAR_STAGES = "Without these"
STAGE_ADDED = "Stage {number} is kept. Now choose the data of the next one in Data, then press Start."
START = "Start training"
START_FROM = "Start from"
START_FROM_HELP = "A fresh adapter, or the result of another run of the same technique and base."
FRESH = "a fresh start"
NAME = "Name"
NAME_HELP = "To recognise the run by."
NAME_EXAMPLE = "my adapter"
MODEL = "Model"
MODEL_HELP = "starter (built in), a Hub id, or a folder or GGUF file."
QUANTIZATION_HELP = "nf4: 4 bits, the least memory."

PAUSE = "Pause"
STOP = "Stop"
RESUME = "Resume"
TO_COMPARE = "Compare answers"
TO_MEASURE = "Measure"
RESULT = "The run's result"
RESULT_HELP = "What answers and what is exported: the adapter at the end of this stage. All of them are kept."
ANSWERS = "Answers on the way"
NO_ANSWERS = "None: set “Samples” to see how answers change while it trains."
USES = "What this run uses"
CURVE_TABLE = "The curve as a table"
EMPTY = (
    "No run yet. Choose on the left what to train, or take everything as it stands and press Start: "
    "loss, metric and forgetting appear here while it learns."
)

LEARNS_FROM = "learns from"
NEEDS, TIMING = "needs {words}", "time is being worked out …"
MEMORY = "{needed:.1f} GB of memory ({free:.1f} GB are free)"
TOO_MUCH_MEMORY = ". That is more than is free: choose a smaller batch size or shorter rows"
STAGE_LEARNS = {"text": "plain text", "instructions": "questions and answers"}
STAGE_STEPS, STAGES_END = "{steps} steps", "then the data above"

# word and sign together: nothing is told by colour alone
SIGNS = {
    "queued": "◔ queued",
    "running": "▶ training",
    "finished": "✓ finished",
    "stopped": "■ stopped",
    "paused": "‖ paused",
    "failed": "✕ failed",
    "lost": "? lost",
    "unreadable": "✕ unreadable",
}
WAITS = "{sign}, {waiting}"
FIGURES = {
    "step": "step",
    "loss": "loss",
    "heldout": "held-out loss",
    "speed": "speed",
    "left": "time left",
}
STEP_OF, OF_BASE, SPEED = "{step} of {steps}", "(base {loss})", "{tokens} tokens/s"
AT_STEP = ", step {step} of {steps}"
SAMPLE_BASE, SAMPLE_STEP = "base", "step {step}"
CURVE_COLUMNS = ["Step", "Train loss (mean)", "Held-out loss", "Metric", "General loss", ""]
KEPT = "kept"
CURVE_MARKS = {"loss": ("lowest: kept", "lowest so far"), "metric": ("best: kept", "best so far")}
TRAINED_OF = "{trained} trained parameters ({share} of {total})"
COMPUTED, NOT_QUANTISED = "{quantization}, computed in {dtype} on {device} with {threads} threads", "not quantised"
ROWS = "{train} rows to train on, {heldout} held out"
STARTED_FROM, NOTICED, ADAPTER = "started from {runs}", "from step {step}: {message}", "adapter: {path}"
MEMORY_TAKEN, MEMORY_FORECAST = "memory taken: {taken:.2f} GB", " ({forecast:.2f} GB were forecast)"
STAGE_RESULT = "stage {number}: {name}"
# what the picture of each technique shows, for those who can't see it
PICTURES = {
    "full": "Attention and MLP themselves are trained, in every layer.",
    "lora": "Beside attention and MLP stand two thin matrices, A and B. They are trained; both blocks are frozen.",
    "prefix": "Before the text's keys and values, attention has trained ones, in every layer; the blocks are frozen.",
    "prompt": "Before the text's tokens stand trained ones, at the input only; the blocks are frozen.",
    "bottleneck": "Behind attention and behind MLP stands a narrow network that is trained; the blocks are frozen.",
    "ia3": "Attention's keys and values and the MLP's middle are multiplied by trained factors; all else is frozen.",
}
PICTURE_QUANTISED = "The frozen weights are kept in four bits."
PICTURE_WORDS = {
    "text": "text",
    "trained": "trained",
    "attention": "attention",
    "mlp": "MLP",
    "every": "every layer",
    "layers": "layers",
    "quantised": ", 4 bits",
}
