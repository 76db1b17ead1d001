"""Texts of the Learn room."""

NOTEBOOKS, GLOSSARY = "Notebooks", "Glossary"
NOTHING_OPEN = (
    "Each notebook takes one idea from its equation to a few lines of code, asks you to guess, and measures. Read one "
    "here with the outputs of its last run; to change and run it, open it in JupyterLab. Begin with the first."
)
NO_NOTEBOOKS = "There are no notebooks beside this app. They are in the folder notebooks/ of the repository."
COMMAND = "Run it in JupyterLab"
COMMAND_HELP = "Copy this into a terminal, in the folder of this project."
SOLUTIONS, EXERCISES = "Show its solutions", "Back to the exercises"
SHOWN_AS_RUN = "Shown as its last run left it. Nothing can be changed here."
TAKES = "{minutes} on the machine it was last run on"
NOT_TIMED = "time not measured"

FIND = "Find a word"
FIND_HELP = "Every word of the field that stands in this app and its notebooks. Part of a word is enough."
FIND_EXAMPLE = "loss"
NONE_FITS = "No word of the glossary fits “{wanted}”. Try a part of the word."
