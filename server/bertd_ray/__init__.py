"""bertd on Ray: models as functions of Ray Data, and behind Ray Serve."""
