# Compile flags per instruction set. A source file named *_<isa>.cc gets the flags of its ISA and no other file does: code
# for a wider machine must not leak into files that every machine runs.
#
# Only files with an ISA of their own may fuse a multiplication and an addition; the portable ones round twice everywhere.
set(VOXPRESS_FLAGS_portable -ffp-contract=off)
set(VOXPRESS_FLAGS_neon -ffp-contract=fast)
set(VOXPRESS_FLAGS_avx2 -mavx2 -mfma -mbmi2 -ffp-contract=fast)
set(VOXPRESS_FLAGS_avx512 -mavx512f -mavx2 -mfma -mprefer-vector-width=512 -ffp-contract=fast)

set(VOXPRESS_FLAGS_neondot -march=armv8.2-a+dotprod)
set(VOXPRESS_FLAGS_neonfp16 -march=armv8.2-a+fp16)
set(VOXPRESS_FLAGS_avx512vnni -mavx512f -mavx512bw -mavx512vl -mavx512vnni -mavx2 -mfma -mbmi2
  -mprefer-vector-width=512)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(VOXPRESS_ISAS portable avx2 avx512)
  set(VOXPRESS_U8_ISAS portable avx2 avx512vnni)
  set(VOXPRESS_FLAGS_aes -maes)
  set(VOXPRESS_ROOF_ISAS avx512vnni)
  set(VOXPRESS_INTEGER_ROOF_ISAS avx2)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
  set(VOXPRESS_FLAGS_aes -march=armv8-a+crypto)
  set(VOXPRESS_ISAS portable neon)
  set(VOXPRESS_U8_ISAS portable neon neondot)
  set(VOXPRESS_INTEGER_ROOF_ISAS neondot)
  set(VOXPRESS_COUNTED_ISAS neonfp16)
else()
  set(VOXPRESS_ISAS portable)
  set(VOXPRESS_U8_ISAS portable)
endif()

# Checked at every step, the unrolled loops take the optimiser minutes.
if(VOXPRESS_SANITIZE OR VOXPRESS_FUZZ)
  foreach(isa portable neon neondot avx2 avx512 avx512vnni)
    list(APPEND VOXPRESS_FLAGS_${isa} -O1)
  endforeach()
endif()

# Adds <stem>_<isa>.cc to the target for each of the ISAs named behind.
function(voxpress_add_isa_sources target stem)
  foreach(isa IN LISTS ARGN)
    set(source ${stem}_${isa}.cc)
    target_sources(${target} PRIVATE ${source})
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${VOXPRESS_FLAGS_${isa}}")
  endforeach()
endfunction()

# The same for kernels that agree bit by bit: nothing is fused but what they fuse themselves. Loops that fill all
# registers are written in the order to run in: GCC's scheduling before allocation makes the sums spill on aarch64.
function(voxpress_add_exact_isa_sources target stem)
  foreach(isa IN LISTS ARGN)
    voxpress_add_isa_sources(${target} ${stem} ${isa})
    set_property(SOURCE ${stem}_${isa}.cc APPEND PROPERTY COMPILE_OPTIONS -ffp-contract=off
      "$<$<CXX_COMPILER_ID:GNU>:-fno-schedule-insns>")
  endforeach()
endfunction()
