# Finds the ExecuTorch package: where executorch_DIR or CMAKE_PREFIX_PATH say, else the wheel of a Python interpreter
# (VOXPRESS_PYTHON, else the one in .venv, else the one on the path). The wheel's libraries are linked by their absolute
# folder, so that what is built runs without environment variables.
# An app that builds ExecuTorch from source has its targets already.
if(TARGET executorch::runtime)
  return()
endif()
if(NOT executorch_DIR AND NOT CMAKE_PREFIX_PATH)
  find_program(VOXPRESS_PYTHON NAMES python3 python HINTS ${CMAKE_SOURCE_DIR}/.venv/bin
               DOC "Python whose ExecuTorch wheel is built against")
  execute_process(
    COMMAND ${VOXPRESS_PYTHON} -c
            "import importlib.util as u; print(next(iter(u.find_spec('executorch').submodule_search_locations)))"
    OUTPUT_VARIABLE _executorch_root
    ERROR_QUIET
    OUTPUT_STRIP_TRAILING_WHITESPACE
    RESULT_VARIABLE _result)
  if(NOT _result EQUAL 0)
    message(FATAL_ERROR "${VOXPRESS_PYTHON} has no executorch package; name another with -DVOXPRESS_PYTHON=..., or leave "
                        "ExecuTorch out with -DVOXPRESS_EXECUTORCH=OFF")
  endif()
  set(executorch_DIR ${_executorch_root}/share/cmake CACHE PATH "Folder of executorch-config.cmake")
endif()
set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL ON) # device_tests/harness links them too
find_package(executorch CONFIG REQUIRED)
set(VOXPRESS_EXECUTORCH_VERSION ${executorch_VERSION} CACHE INTERNAL "Version of the ExecuTorch package")
