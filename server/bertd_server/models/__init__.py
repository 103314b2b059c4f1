"""Models that answer: found in folders, loaded, measured, exchanged, unloaded, while others answer.

::

    layout      what a repository's folder holds, and which of it is to be served; nothing is loaded
    keeper      makes what is served equal to that, one model after the other
    said        what a look at the folder has to say, once
    repository  what there is, and the calls that change it
        │
    loading     one bundle after the other, with the settings of the server and the model's own
    startup     a bundle made ready: verified, loaded, within its memory, warm, measured
                (memory, shapes, sampling, calibration; exporting, default_model where no bundle is)
        │
    background  goes on measuring while lanes rest
    model       answers; whoever uses it holds it
    catalogue   finds a model by name, alias and version
"""
