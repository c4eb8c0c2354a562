# find_package(gru_c CONFIG) gives gru_c::headers, the folder of gru_c.h wherever the package is
# installed. Its functions come from the capsule gru_c._C_API, so there is nothing to link.
get_filename_component(gru_c_INCLUDE_DIR "${CMAKE_CURRENT_LIST_DIR}/../../../include" ABSOLUTE)

if(NOT TARGET gru_c::headers)
  add_library(gru_c::headers INTERFACE IMPORTED)
  set_target_properties(gru_c::headers PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${gru_c_INCLUDE_DIR}")
endif()
