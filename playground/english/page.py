"""Texts of what surrounds the rooms."""

TITLE = "Fine-tuning Playground"
ROOMS = {
    "data": "Data",
    "train": "Train",
    "compare": "Compare",
    "measure": "Measure",
    "runs": "Runs",
    "learn": "Learn",
}
OFFLINE = "The playground does not answer. Trainings go on; the page comes back by itself when it does."
NO_RUN = "no run yet"
SHARE_DONE = "share of the steps done"
DARK = "Dark"
PROJECTOR = "Large"
NOT_CHOSEN = "No run is chosen. Choose one in Runs."

FIRST_TITLE = "Tune a language model on your own examples, on this machine"
FIRST_WORDS = (
    "One press trains a small adapter on the built-in model and shows its answers beside the base's. "
    "About two minutes on a laptop, no account, no GPU, no network."
)
FIRST_BUTTON = "Train a quick adapter"
FIRST_OWN = "Begin with my data"

TOUR = "What is where"
TOUR_NEXT = "Next"
TOUR_STEPS = (
    ("Data", "Choose the examples the model learns from, see them as the model reads them, and mend what is wrong."),
    ("Train", "Choose model, technique and how long. What it will take stands there before you press Start."),
    ("Compare", "Ask the base and the tuned model the same question and read their answers side by side."),
    ("Measure", "Let both answer rows that nobody trained on: better, worse, or not enough evidence."),
    ("Runs", "Everything that was trained, to be found again, compared, gone on with and taken along."),
)
