"""Models of a server: loaded, swapped and unloaded while it answers.

::

    layout      what a folder holds, and which of it is to be served; no model is touched
    loading     a bundle to a model, with the settings of the server and its own
    index       what is there, and the calls that change it
    keeper      makes what is served equal to what is to be served, one model after the other
"""
