# Rows that differ: sorted by length, and marked where a step does not count or a state is reset.


cdef bint sort_rows(const Py_ssize_t *given, Py_ssize_t rows, Py_ssize_t steps, Ragged *ragged,
                    Py_ssize_t *firsts) noexcept nogil:
    """Fill a Ragged from the lengths of all rows. False if one is not from 0 to `steps`.

    Rows of one length keep their order. `firsts` has room for steps + 1.
    """
    cdef Py_ssize_t longer = 0, count, row, t
    memset(firsts, 0, (steps + 1) * sizeof(Py_ssize_t))
    for row in range(rows):
        if not 0 <= given[row] <= steps:
            return False
        firsts[given[row]] += 1
    for t in range(steps, -1, -1):                         # firsts[t] = rows of more than t steps
        count, firsts[t] = firsts[t], longer
        longer += count
    ragged.offsets[0] = 0
    for t in range(steps):
        ragged.offsets[t + 1] = ragged.offsets[t] + firsts[t]
    for row in range(rows):
        count = firsts[given[row]]
        firsts[given[row]] += 1
        ragged.order[count] = row
        ragged.lengths[count] = given[row]
    return True


cdef void mark_rows(const unsigned char *mask, const unsigned char *resets, const Ragged *ragged,
                    Py_ssize_t steps, Py_ssize_t rows, unsigned char *marks) noexcept nogil:
    """The marks (T, N) of all rows, longest first, from `mask` and `resets` (T, N), or NULL."""
    cdef Py_ssize_t row, place
    memset(marks, 0, steps * rows)
    for row in range(rows):
        place = row if ragged == NULL else ragged.order[row]
        mark_row(mask + place if mask != NULL else NULL,
                 resets + place if resets != NULL else NULL, rows,
                 steps if ragged == NULL else ragged.lengths[row], marks + row)


cdef void mark_row(const unsigned char *mask, const unsigned char *resets, Py_ssize_t rows,
                   Py_ssize_t steps, unsigned char *marks) noexcept nogil:
    """The marks of one row; its steps are `rows` apart."""
    cdef:
        Py_ssize_t t
        bint begun = False
    for t in range(steps if resets != NULL else 0):
        if resets[t * rows]:
            marks[t * rows] |= RESET
    for t in range(steps if mask != NULL else 0):
        begun = begun or mask[t * rows]
        if not mask[t * rows]:
            marks[t * rows] |= HELD if begun else HELD | SILENT
    begun = False
    for t in range(steps - 1 if mask != NULL else -1, -1, -1):
        begun = begun or mask[t * rows]
        if not begun:
            marks[t * rows] |= SILENT_REVERSE
