# Compile flags per instruction set. A source file named *_<isa>.cc gets the flags of its ISA and no other file does: code
# for a wider machine must not leak into files that every machine runs.
#
# Only files with an ISA of their own may fuse a multiplication and an addition; the portable ones round twice everywhere.
set(VOXPRESS_FLAGS_portable -ffp-contract=off)
set(VOXPRESS_FLAGS_neon -ffp-contract=fast)
set(VOXPRESS_FLAGS_avx2 -mavx2 -mfma -ffp-contract=fast)
set(VOXPRESS_FLAGS_avx512 -mavx512f -mavx2 -mfma -mprefer-vector-width=512 -ffp-contract=fast)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(VOXPRESS_ISAS portable avx2 avx512)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
  set(VOXPRESS_ISAS portable neon)
else()
  set(VOXPRESS_ISAS portable)
endif()

# Checked at every step, the unrolled loops take the optimiser minutes.
if(VOXPRESS_SANITIZE)
  foreach(isa IN LISTS VOXPRESS_ISAS)
    list(APPEND VOXPRESS_FLAGS_${isa} -O1)
  endforeach()
endif()

# Adds <stem>_<isa>.cc to the target for each ISA of the machine that is compiled for.
function(voxpress_add_isa_sources target stem)
  foreach(isa IN LISTS VOXPRESS_ISAS)
    set(source ${stem}_${isa}.cc)
    target_sources(${target} PRIVATE ${source})
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${VOXPRESS_FLAGS_${isa}}")
  endforeach()
endfunction()
