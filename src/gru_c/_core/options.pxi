# Options of a sequence: what the calls of a forward and of its backward are told about their rows.


@cython.final
cdef class RowOptions:
    """Rows of different lengths, marks of steps, and multipliers of dropout; see rnn/call.pxd."""
    cdef:
        Ragged ragged
        bint is_ragged
        Py_ssize_t steps               # of the longest row, at least 1
        cnp.ndarray marks              # or None
        bint output_is_h               # what a layer passes on is its hidden states, all of them
        bint has_held_steps            # some rows hold their state in some steps
        list multipliers               # of each call: of output, input and h, or None
        tuple arrays                   # the memory of `ragged`

    def __init__(self, tuple arranged):
        """`arranged` is from `_options.SequenceOptions.arrange`."""
        cdef:
            cnp.ndarray order, lengths, offsets
            int found
        self.arrays, self.marks, self.multipliers = arranged
        self.is_ragged = self.arrays is not None
        if self.is_ragged:
            order, lengths, offsets = self.arrays
            self.steps = max(1, lengths[0] if len(lengths) else 0)
            self.ragged = Ragged(<Py_ssize_t *> cnp.PyArray_DATA(order),
                                 <Py_ssize_t *> cnp.PyArray_DATA(lengths),
                                 <Py_ssize_t *> cnp.PyArray_DATA(offsets))
        found = bits_of(self.marks)
        self.has_held_steps = found & HELD != 0
        self.output_is_h = not (
            self.is_ragged or found & RESET
            or self.multipliers is not None and any(of_output is not None for of_output, *_ in
                                                    self.multipliers))


cdef int bits_of(cnp.ndarray marks) noexcept:
    """All bits of the marks, or 0 for None. `any` of NumPy has no MemoryError."""
    cdef:
        Py_ssize_t i
        const unsigned char *mark
        int found = 0
    if marks is not None:
        mark = <const unsigned char *> cnp.PyArray_DATA(marks)
        for i in range(cnp.PyArray_SIZE(marks)):
            found |= mark[i]
    return found


def sort_by_length(cnp.ndarray lengths, Py_ssize_t steps):
    """(order, lengths, offsets) of a Ragged, or None if a length is not from 0 to `steps`.

    `lengths` is contiguous, of Py_ssize_t. Rows of one length keep their order.
    """
    cdef:
        cnp.npy_intp rows = cnp.PyArray_DIM(lengths, 0), ends = steps + 1, row, t
        cnp.ndarray order = cnp.PyArray_EMPTY(1, &rows, cnp.NPY_INTP, 0)
        cnp.ndarray sorted_ = cnp.PyArray_EMPTY(1, &rows, cnp.NPY_INTP, 0)
        cnp.ndarray offsets = cnp.PyArray_EMPTY(1, &ends, cnp.NPY_INTP, 0)
        cnp.ndarray firsts = cnp.PyArray_ZEROS(1, &ends, cnp.NPY_INTP, 0)
        Py_ssize_t *given = <Py_ssize_t *> cnp.PyArray_DATA(lengths)
        Py_ssize_t *offset = <Py_ssize_t *> cnp.PyArray_DATA(offsets)
        Py_ssize_t *first = <Py_ssize_t *> cnp.PyArray_DATA(firsts)
        Py_ssize_t longer = 0, count
    for row in range(rows):
        if not 0 <= given[row] <= steps:
            return None
        first[given[row]] += 1
    for t in range(steps, -1, -1):                         # first[t] = rows of more than t steps
        count, first[t] = first[t], longer
        longer += count
    offset[0] = 0
    for t in range(steps):
        offset[t + 1] = offset[t] + first[t]
    for row in range(rows):
        count = first[given[row]]
        first[given[row]] += 1
        (<Py_ssize_t *> cnp.PyArray_DATA(order))[count] = row
        (<Py_ssize_t *> cnp.PyArray_DATA(sorted_))[count] = given[row]
    return order, sorted_, offsets


def marks(cnp.ndarray mask, cnp.ndarray resets, tuple ragged, cnp.npy_intp steps,
          cnp.npy_intp rows):
    """The marks of steps and rows; `mask` and `resets` are contiguous bools (T, N), or None."""
    cdef:
        cnp.npy_intp[2] shape = [steps, rows]
        cnp.ndarray found = cnp.PyArray_ZEROS(2, shape, cnp.NPY_UINT8, 0)
        const unsigned char *counts = NULL
        const unsigned char *resets_ = NULL
        unsigned char *mark = <unsigned char *> cnp.PyArray_DATA(found)
        Py_ssize_t *order = NULL
        Py_ssize_t *lengths = NULL
        Py_ssize_t row, place
    if mask is not None:
        counts = <const unsigned char *> cnp.PyArray_DATA(mask)
    if resets is not None:
        resets_ = <const unsigned char *> cnp.PyArray_DATA(resets)
    if ragged is not None:
        order = <Py_ssize_t *> cnp.PyArray_DATA(<cnp.ndarray> ragged[0])
        lengths = <Py_ssize_t *> cnp.PyArray_DATA(<cnp.ndarray> ragged[1])
    for row in range(rows):
        place = row if order == NULL else order[row]
        mark_row(counts + place if counts != NULL else NULL,
                 resets_ + place if resets_ != NULL else NULL, rows,
                 steps if lengths == NULL else lengths[row], mark + row)
    return found


cdef void mark_row(const unsigned char *counts, const unsigned char *resets, Py_ssize_t rows,
                   Py_ssize_t steps, unsigned char *marks) noexcept:
    """The marks of one row; its steps are `rows` apart."""
    cdef:
        Py_ssize_t t
        bint begun = False
    for t in range(steps if resets != NULL else 0):
        if resets[t * rows]:
            marks[t * rows] |= RESET
    for t in range(steps if counts != NULL else 0):
        begun = begun or counts[t * rows]
        if not counts[t * rows]:
            marks[t * rows] |= HELD if begun else HELD | SILENT
    begun = False
    for t in range(steps - 1 if counts != NULL else -1, -1, -1):
        begun = begun or counts[t * rows]
        if not begun:
            marks[t * rows] |= SILENT_REVERSE


cdef void set_options(Call *call, RowOptions options, const Shape *shape,
                      Py_ssize_t index) noexcept:
    """The options of one call; arrays of inner layers are packed."""
    cdef:
        Py_ssize_t D = shape.directions
        tuple multipliers
    call.has_options = True
    call.x_packed = call.dx_packed = index >= D
    call.output_packed = index + D < shape.calls
    if options.is_ragged:
        call.ragged = &options.ragged
    if options.marks is not None:
        call.marks = <const unsigned char *> cnp.PyArray_DATA(options.marks)
    if options.multipliers is not None:
        multipliers = options.multipliers[index]
        set_view(&call.dropout, multipliers[0], 0, 1)
        set_view(&call.input_dropout, multipliers[1], -1, 0)
        set_view(&call.recurrent_dropout, multipliers[2], -1, 0)
        if call.dropout.data != NULL:                      # the columns of this direction
            call.dropout.data += index % D * call.layer.hidden_size * call.layer.context.itemsize
