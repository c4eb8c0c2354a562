"""The recurrent layer: the description of a call, forward and backward, memory."""
