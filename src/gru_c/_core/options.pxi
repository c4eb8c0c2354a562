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
        View3 *multipliers             # (calls, 3): of output, input and h; NULL for none
        list masks                     # the memory of those: three of each call, or None
        tuple arrays                   # the memory of `ragged`

    def __init__(self, tuple arranged):
        """`arranged` is from `_options.SequenceOptions.arrange`."""
        cdef:
            int found
        self.arrays, self.marks, self.masks = arranged
        self.is_ragged = self.arrays is not None
        if self.is_ragged:
            order, lengths, offsets = self.arrays
            self.steps = max(1, lengths[0] if len(lengths) else 0)
            self.ragged = ragged_of(order, lengths, offsets)
        if self.masks is not None:
            self.set_multipliers()
        found = bits_of(self.marks)
        self.has_held_steps = found & HELD != 0
        self.output_is_h = not (
            self.is_ragged or found & RESET
            or self.masks is not None and any(of_output is not None for of_output, *_ in
                                              self.masks))

    cdef int set_multipliers(self) except -1:
        """The views of the masks."""
        cdef Py_ssize_t index
        self.multipliers = <View3 *> PyMem_RawMalloc(3 * len(self.masks) * sizeof(View3))
        if self.multipliers == NULL:
            raise MemoryError("could not allocate the views of dropout masks")
        for index, (of_output, of_input, of_h) in enumerate(self.masks):
            set_view(&self.multipliers[3 * index], of_output, 0, 1)
            set_view(&self.multipliers[3 * index + 1], of_input, -1, 0)
            set_view(&self.multipliers[3 * index + 2], of_h, -1, 0)
        return 0

    def __dealloc__(self):
        PyMem_RawFree(self.multipliers)


cdef int bits_of(cnp.ndarray marks) noexcept:
    """All bits of the marks, or 0 for None. `any` of NumPy has no MemoryError."""
    cdef:
        Py_ssize_t i
        const unsigned char *mark
        int found = 0
    if marks is not None:
        mark = bytes_of(marks)
        for i in range(cnp.PyArray_SIZE(marks)):
            found |= mark[i]
    return found


def sort_by_length(cnp.ndarray lengths, Py_ssize_t steps):
    """(order, lengths, offsets) of a Ragged, or None if a length is not from 0 to `steps`.

    `lengths` is contiguous, of Py_ssize_t.
    """
    cdef:
        cnp.npy_intp rows = cnp.PyArray_DIM(lengths, 0), ends = steps + 1
        cnp.ndarray order = cnp.PyArray_EMPTY(1, &rows, cnp.NPY_INTP, 0)
        cnp.ndarray sorted_ = cnp.PyArray_EMPTY(1, &rows, cnp.NPY_INTP, 0)
        cnp.ndarray offsets = cnp.PyArray_EMPTY(1, &ends, cnp.NPY_INTP, 0)
        cnp.ndarray firsts = cnp.PyArray_EMPTY(1, &ends, cnp.NPY_INTP, 0)
        Ragged ragged = ragged_of(order, sorted_, offsets)
    if not sort_rows(<const Py_ssize_t *> cnp.PyArray_DATA(lengths), rows, steps, &ragged,
                     <Py_ssize_t *> cnp.PyArray_DATA(firsts)):
        return None
    return order, sorted_, offsets


cdef Ragged ragged_of(cnp.ndarray order, cnp.ndarray lengths, cnp.ndarray offsets) noexcept:
    return Ragged(<Py_ssize_t *> cnp.PyArray_DATA(order), <Py_ssize_t *> cnp.PyArray_DATA(lengths),
                  <Py_ssize_t *> cnp.PyArray_DATA(offsets))


def marks(cnp.ndarray mask, cnp.ndarray resets, tuple ragged, cnp.npy_intp steps,
          cnp.npy_intp rows):
    """The marks of steps and rows; `mask` and `resets` are contiguous bools (T, N), or None."""
    cdef:
        cnp.npy_intp[2] shape = [steps, rows]
        cnp.ndarray found = cnp.PyArray_EMPTY(2, shape, cnp.NPY_UINT8, 0)
        Ragged sorted_
    if ragged is not None:
        sorted_ = ragged_of(ragged[0], ragged[1], ragged[2])
    mark_rows(bytes_of(mask), bytes_of(resets), NULL if ragged is None else &sorted_, steps, rows,
              bytes_of(found))
    return found


cdef unsigned char *bytes_of(cnp.ndarray a) noexcept:
    return NULL if a is None else <unsigned char *> cnp.PyArray_DATA(a)


cdef void set_options(Call *call, RowOptions options) noexcept:
    """What all calls are told of their rows."""
    call.has_options = (options.is_ragged or options.marks is not None
                        or options.multipliers != NULL)
    if options.is_ragged:
        call.ragged = &options.ragged
    call.marks = bytes_of(options.marks)
