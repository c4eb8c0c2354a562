# Options of a sequence: what the calls of a forward, and of its backward, are told about their rows.


@cython.final
cdef class Options:
    """Rows of different lengths, marks of steps, and multipliers of dropout; see rnn/call.pxd."""
    cdef:
        Ragged ragged
        bint is_ragged
        cnp.ndarray marks              # or None
        bint output_is_h               # what a layer passes on is its hidden states, all of them
        bint holds                     # some rows hold their state in some steps
        list multipliers               # of each call: of output, input and h, or None
        tuple arrays                   # the memory of `ragged`

    def __init__(self, tuple arranged):
        """`arranged` is from `_options.Options.arrange`."""
        cdef cnp.ndarray order, lengths, offsets
        self.arrays, self.marks, self.multipliers = arranged
        self.is_ragged = self.arrays is not None
        if self.is_ragged:
            order, lengths, offsets = self.arrays
            self.ragged = Ragged(<Py_ssize_t *> cnp.PyArray_DATA(order),
                                 <Py_ssize_t *> cnp.PyArray_DATA(lengths),
                                 <Py_ssize_t *> cnp.PyArray_DATA(offsets))
        self.holds = self.marks is not None and bool((self.marks & HELD).any())
        self.output_is_h = not (
            self.is_ragged or self.marks is not None and (self.marks & RESET).any()
            or self.multipliers is not None and any(of_output is not None for of_output, *_ in
                                                    self.multipliers))


cdef void set_options(Call *call, Options options, const Shape *shape, Py_ssize_t index) noexcept:
    """The options of one call; arrays of inner layers are packed."""
    cdef:
        Py_ssize_t D = shape.directions
        tuple multipliers
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
