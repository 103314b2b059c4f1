"""Settings of `bertd serve`.

::

    settings        every setting: default, unit, help, limits
    configuration   flags > `BERTD_…` > TOML file > defaults, and where each value came from
      flags           the flags, derived from the settings
    reloading       what SIGHUP reads again
"""
