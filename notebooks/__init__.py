"""The tutorial, and the tools that make it.

`solutions/NN_name.ipynb` is the source: prose, code, the learner's cells filled in, the outputs of one run.
`NN_name.ipynb` is what a learner opens. `python -m notebooks.generate` makes it from the source, and
`python -m notebooks.run` runs the source in full first. Neither tool is used by a notebook: of this project notebooks
import `tunelab` alone.
"""
