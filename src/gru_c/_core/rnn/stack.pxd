"""The calls of a model: one per layer and direction, which run one after the other.

    plan_stack(stack, calls)             plans all; sets the sizes
    connect_stack(stack, calls, memory)  gives them `stack.size` bytes of memory, of any alignment
    run_stack(stack, calls)              runs all

`calls` are in the order of the parameters: both directions of layer 0, then those of layer 1.
Before the plan the caller fills in each as rnn/call.pxd says. The plan sets the states, the
multipliers, the workspace, and the arrays between layers. A call in TRAINING or BACKWARD is given
`saved` before it runs.
"""

from gru_c._core.rnn.call cimport View3

cdef struct Stack:
    # ---- the description
    Py_ssize_t count           # calls: layers times directions
    Py_ssize_t directions      # of a layer, 1 or 2
    # (count, N, H): `step` is from call to call; or NULL
    View3 first_states         # h_0 of a forward, d_h_n of a backward
    View3 last_states          # h_n, or dh_0
    const View3 *multipliers   # (count, 3): of output, x and h of each call; or NULL
    bint output_is_h           # what a layer passes on is its hidden states, all of them
    bint has_held_steps        # some rows hold their state in some steps
    # ---- the plan: bytes of the memory of all calls
    Py_ssize_t between         # of each buffer between two layers
    int buffers                # how many of them
    Py_ssize_t second_dx       # of dx of the second direction
    Py_ssize_t workspace       # of a call
    Py_ssize_t size            # of all
