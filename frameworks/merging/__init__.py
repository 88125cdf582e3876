"""Operators that merge the weights of several models into one, tensor by tensor."""
