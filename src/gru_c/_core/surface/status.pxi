# What each status says.


cdef const char *status_text(int status) noexcept nogil:
    if status == GRU_OK:
        return "ok"
    if status == GRU_NULL_POINTER:
        return "a pointer is NULL that must not be"
    if status == GRU_BAD_SIZE:
        return "a size or count is negative, zero where it must not be, or too large"
    if status == GRU_BAD_OPTIONS_SIZE:
        return ("options.struct_size is of no version of gru_options up to that of this "
                "library: set it to sizeof(gru_options); if it is, the header is newer than the "
                "library")
    if status == GRU_BAD_OPTION:
        return "an option has a value that it cannot have, or one that does not go with another"
    if status == GRU_BAD_LENGTHS:
        return "a length is not from 0 to the number of steps"
    if status == GRU_BAD_THREADS:
        return "the number of threads is less than one"
    if status == GRU_NOT_A_MODEL:
        return "no model of this version of the library: freed, overwritten, or never made"
    if status == GRU_OTHER_DTYPE:
        return "the model or stream has another dtype than the function"
    if status == GRU_NOT_PACKED:
        return "a layer of the model has no weights yet: call gru_model_pack for each"
    if status == GRU_ALREADY_PACKED:
        return "this layer has its weights, which never change"
    if status == GRU_NO_TRAINING:
        return ("the model was made without options.training, or handle() was called in eval "
                "mode, or its weights have fewer bits")
    if status == GRU_NOT_SAVED:
        return ("`saved` is not from a gru_forward_training of this model with these sizes, or "
                "a backward has used it")
    if status == GRU_MEMORY_TOO_SMALL:
        return "the memory is not enough: ask its size query with the same pass, sizes and options"
    if status == GRU_OUT_OF_MEMORY:
        return "there is not enough memory"
    if status == GRU_NOT_A_STREAM:
        return "no stream of this version of the library: freed, overwritten, or never made"
    if status == GRU_NOT_CAUSAL:
        return "a stream needs a model of one direction, from the first step to the last"
    if status == GRU_BAD_ROW:
        return "a row is not from 0 to the number of rows - 1"
    if status == GRU_MISALIGNED:
        return "an array is not aligned as its type is"
    return ""
