# Packing of a layer: its sizes, where its packed matrices are, and how they are filled.

cdef enum:
    MERGED_UNITS = 32              # the most units of a layer whose products with x are merged
    SMALL_UNITS = 64               # the most units of a layer that may take `small_steps`
    L1_ROWS = 64                   # of weights of small layers: to widen them would take time


cdef void init_layer(PackedLayer *layer, Storage storage, size_t itemsize, Py_ssize_t input_size,
                     Py_ssize_t hidden_size, bint reset_after) noexcept nogil:
    """Set the sizes of a layer, which has no weights yet. `storage` is that of its W_ih."""
    cdef const Context *context = context_of(storage, itemsize)
    memset(layer, 0, sizeof(PackedLayer))
    layer.context = context
    layer.storage_ih = storage
    layer.storage_hh = INT8 if storage == INT8_12_BITS else storage
    layer.input_size, layer.hidden_size = input_size, hidden_size
    layer.reset_after = reset_after
    layer.pointwise = &context.sigmoid_tanh
    layer.plane = round_up(hidden_size * context.itemsize, LINE)
    layer.ld_gates = leading_dimension(4 * layer.plane)
    layer.ld_h = leading_dimension(layer.plane)


cdef void set_activations(PackedLayer *layer, Activations activations) noexcept nogil:
    """Of all but the `low` and `high` of each; in place of sigmoid and tanh."""
    layer.activations = activations
    layer.context.set_ends(&layer.activations.r_z)
    layer.context.set_ends(&layer.activations.n)
    layer.pointwise = &layer.context.any_activations


cdef size_t place_forward_weights(PackedLayer *layer, void *memory) noexcept nogil:
    """Place the bias and the packed weights of the forward. Returns their size in bytes."""
    cdef:
        size_t end = whole_lines(<size_t> memory)
        Py_ssize_t width = layer.hidden_size * layer.context.itemsize, i
    layer.bias = place(&end, 4 * layer.plane)
    for i in range(3):
        place_matrix(layer, &layer.w_ih[i], layer.storage_ih, 1, layer.input_size, width, &end)
    for i in range(3):
        place_matrix(layer, &layer.w_hh[i], layer.storage_hh, 1, layer.hidden_size, width, &end)
    if layer.plane <= MERGED_UNITS * layer.context.itemsize:
        place_merged(layer, &layer.w_ih_merged, layer.input_size, &end)
    if (layer.hidden_size <= SMALL_UNITS and layer.context.pack_small != NULL
            and layer.w_hh[0].storage != BFLOAT16):
        layer.w_hh_small = place(&end, 3 * layer.w_hh[0].lines * layer.plane)
    return end - <size_t> memory + LINE


cdef size_t place_backward_weights(PackedLayer *layer, void *memory) noexcept nogil:
    """Place the transposes, for the backward. Returns their size in bytes."""
    cdef:
        size_t end = whole_lines(<size_t> memory)
        Py_ssize_t itemsize = layer.context.itemsize, H = layer.hidden_size
    place_matrix(layer, &layer.w_ih_t, AS_DTYPE, 3, H, layer.input_size * itemsize, &end)
    place_matrix(layer, &layer.w_hh_t, AS_DTYPE, 3 if layer.reset_after else 2, H, H * itemsize,
                 &end)
    if not layer.reset_after:
        place_matrix(layer, &layer.w_hn_t, AS_DTYPE, 1, H, H * itemsize, &end)
    return end - <size_t> memory + LINE


cdef void place_merged(const PackedLayer *layer, PackedMatrix *packed, Py_ssize_t k,
                       size_t *end) noexcept nogil:
    """Place a merged matrix, and behind it room for it before it is packed."""
    place_matrix(layer, packed, layer.storage_ih, 1, k, 3 * layer.plane, end)
    place(end, packed.lines * packed.n)


cdef void place_matrix(const PackedLayer *layer, PackedMatrix *packed, Storage storage,
                       Py_ssize_t segments, Py_ssize_t k, Py_ssize_t width,
                       size_t *end) noexcept nogil:
    """Place (segments * k) rows of `width` bytes; the segments multiply planes of the gates."""
    packed.context, packed.storage = layer.context, storage
    if storage == BFLOAT16 and k <= L1_ROWS and layer.hidden_size <= SMALL_UNITS:
        packed.storage = storage = AS_DTYPE                # but `pack_gate` rounds
    packed.lines = lines_of(storage, k)
    packed.one_visit = segments == 1 and (k <= layer.context.kc or storage != AS_DTYPE)
    packed.gemm = layer.context.gemm[storage]
    packed.gemm_prefetch = layer.context.gemm_prefetch[storage]
    packed.segments, packed.a_segment, packed.k = segments, layer.plane, k
    packed.n = round_up(width, LINE)
    packed.n_computed = round_up(width, layer.context.unit)
    packed.data = place(end, segments * packed.lines * packed.n)


cdef void pack_forward_weights(PackedLayer *layer, const real *weight_ih, const real *weight_hh,
                               const real *bias_ih, const real *bias_hh) noexcept nogil:
    """B[k, j] = W[j, k] for each gate of the stack r z n. The memory must be zeroed."""
    cdef:
        Py_ssize_t inputs = layer.input_size, H = layer.hidden_size, i
        Py_ssize_t[3] gates = [2, 0, 1]                    # of the planes n r z
    for i in range(3):
        pack_gate(&layer.w_ih[i], layer.storage_ih, weight_ih + gates[i] * H * inputs, H)
        pack_gate(&layer.w_hh[i], layer.storage_hh, weight_hh + i * H * H, H)
    if layer.w_ih_merged.data != NULL:
        pack_merged(&layer.w_ih_merged, layer.w_ih)
    if layer.w_hh_small != NULL:
        pack_small(layer)
    if bias_ih != NULL:
        merge_bias(layer, bias_ih, bias_hh)


cdef void pack_gate(PackedMatrix *packed, Storage storage, const real *weight,
                    Py_ssize_t units) noexcept nogil:
    """The weights of a gate, a row for each unit, rounded as `storage` says."""
    if packed.storage == AS_DTYPE:
        pack_b(packed, 0, weight, 1, packed.k, units)
    if real is float and packed.storage != AS_DTYPE:
        pack_rounded(packed, weight, units)
    elif real is float and storage == BFLOAT16:
        round_all(packed.k * packed.n // <Py_ssize_t> sizeof(float), <float *> packed.data)


cdef void merge_bias(PackedLayer *layer, const real *bias_ih, const real *bias_hh) noexcept nogil:
    """One bias per plane n r z q: b_i + b_h, but with reset_after b_hn is that of q."""
    cdef:
        Py_ssize_t H = layer.hidden_size, P = layer.plane // sizeof(real), j
        real *bias = <real *> layer.bias
    for j in range(H):
        bias[P + j] = bias_ih[j] + bias_hh[j]
        bias[2 * P + j] = bias_ih[H + j] + bias_hh[H + j]
        bias[j] = bias_ih[2 * H + j]
        if layer.reset_after:
            bias[3 * P + j] = bias_hh[2 * H + j]
        else:
            bias[j] += bias_hh[2 * H + j]


cdef void pack_merged(PackedMatrix *packed, const PackedMatrix *gates) noexcept nogil:
    """Put the packed matrices of gates, of one panel each, side by side."""
    cdef:
        Py_ssize_t nr = micropanel_width(gates.context, gates.n), k = packed.lines, i, first, width
        View2 b = View2(packed.data + k * packed.n, packed.n)
    for i in range(packed.n // nr):
        first = i * nr
        copy_rows(k, nr, gates[first // gates.n].data + first % gates.n * k, nr, b.data + first,
                  b.ld)
    for i in range(ceil_div(packed.n, PANEL_BYTES)):
        first = i * PANEL_BYTES
        width = min(<Py_ssize_t> PANEL_BYTES, packed.n - first)
        pack_panel(packed.context, k, width, width, View2(b.data + first, b.ld),
                   packed.data + k * first)


cdef void pack_small(const PackedLayer *layer) noexcept nogil:
    """W_hh once more, for `small_steps`, from the packed matrices of its gates."""
    cdef:
        Py_ssize_t size = layer.context.small_vector, i
        Py_ssize_t vectors = ceil_div(layer.hidden_size * layer.context.itemsize, size)
        Micropanels[96] w_hh                               # 64 doubles in vectors of 16 bytes
    for i in range(3 * vectors):
        w_hh[i] = micropanels_of(&layer.w_hh[i // vectors], i % vectors * size)
    layer.context.pack_small(layer.hidden_size, layer.reset_after, w_hh, layer.w_hh_small)


cdef void pack_backward_weights(PackedLayer *layer, const real *weight_ih,
                                const real *weight_hh) noexcept nogil:
    """B[k, j] = W[k, j]."""
    cdef:
        Py_ssize_t inputs = layer.input_size, H = layer.hidden_size, i
        Py_ssize_t[3] gates = [2, 0, 1]
    for i in range(3):
        pack_b(&layer.w_ih_t, i, weight_ih + gates[i] * H * inputs, inputs, 1, inputs)
    for i in range(layer.w_hh_t.segments):
        pack_b(&layer.w_hh_t, i, weight_hh + i * H * H, H, 1, H)
    if not layer.reset_after:
        pack_b(&layer.w_hn_t, 0, weight_hh + 2 * H * H, H, 1, H)
