# Is there an nvcc that works, with its headers, its runtime and a host compiler that it takes? Sets
# build_cuda and, where that is OFF, cuda_missing: why, in one line, which build_info() tells.
# Asked before CMake's own enable_language(CUDA), which stops at the first thing that it dislikes.
# Alone: cmake -DSUDER_CUDA=AUTO -P csrc/cuda/compiler/find.cmake
set(least_nvcc 12.4)  # C++20, and what ptxas of that version is known to take

set(build_cuda OFF)
set(cuda_missing "built with SUDER_CUDA=OFF")
if(NOT SUDER_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "SUDER_CUDA=${SUDER_CUDA}: takes AUTO, ON or OFF")
endif()

# Sets cuda_missing, and cuda_output if something was run.
macro(suder_probe_cuda)
  set(cuda_output "")
  set(nvcc "${CMAKE_CUDA_COMPILER}")
  if(NOT nvcc AND DEFINED ENV{CUDACXX})
    set(nvcc "$ENV{CUDACXX}")
  endif()
  if(NOT nvcc)
    find_program(SUDER_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda
                 PATH_SUFFIXES bin)
    set(nvcc "${SUDER_NVCC}")
  endif()
  if(NOT nvcc)
    set(cuda_missing "no nvcc was found at build time")
  else()
    execute_process(COMMAND "${nvcc}" --version RESULT_VARIABLE status OUTPUT_VARIABLE cuda_output
                    ERROR_VARIABLE cuda_output)
    if(NOT status EQUAL 0 OR NOT cuda_output MATCHES "release ([0-9]+\\.[0-9]+)")
      set(cuda_missing "${nvcc} --version does not work")
    elseif(CMAKE_MATCH_1 VERSION_LESS least_nvcc)
      set(cuda_missing "${nvcc} is of CUDA ${CMAKE_MATCH_1}, ${least_nvcc} or newer is needed")
    else()
      suder_compile_probe("${CMAKE_MATCH_1}")
    endif()
  endif()
endmacro()

macro(suder_compile_probe version)
  # Machine code from Ampere to what this nvcc knows, and PTX for what comes after.
  set(newest 100-real 120-real 100-virtual)
  if("${version}" VERSION_LESS 12.8)
    set(newest 90-virtual)
  endif()
  set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90a-real ${newest}
      CACHE STRING "CUDA architectures")
  set(options -std=c++20)
  if(CMAKE_CUDA_HOST_COMPILER)
    list(APPEND options -ccbin "${CMAKE_CUDA_HOST_COMPILER}")
  elseif(DEFINED ENV{CUDAHOSTCXX})
    list(APPEND options -ccbin "$ENV{CUDAHOSTCXX}")
  endif()
  set(folder "${CMAKE_CURRENT_BINARY_DIR}/cuda_probe")
  set(source "${CMAKE_CURRENT_LIST_DIR}/probe.cu")
  file(MAKE_DIRECTORY "${folder}")
  execute_process(
    COMMAND "${nvcc}" ${options} "${source}" -o "${folder}/probe"
    RESULT_VARIABLE status OUTPUT_VARIABLE cuda_output ERROR_VARIABLE cuda_output)
  if(status EQUAL 0)
    set(build_cuda ON)
    set(cuda_missing "")
    set(CMAKE_CUDA_COMPILER "${nvcc}" CACHE FILEPATH "CUDA compiler")
  else()
    # The line that says what is wrong; of several the first.
    string(REGEX MATCH "[^\n]*([Ee]rror|fatal|unsupported|not found|No such)[^\n]*" line
           "${cuda_output}")
    if(NOT line)
      string(REGEX MATCH "[^\n]+" line "${cuda_output}")
    endif()
    set(cuda_missing "${nvcc} ${version} does not compile a test program: ${line}")
  endif()
endmacro()

if(NOT SUDER_CUDA STREQUAL "OFF")
  suder_probe_cuda()
  # It becomes a macro of C++, on a command line.
  string(REGEX REPLACE "[^A-Za-z0-9 .,:/_=+-]+" " " cuda_missing "${cuda_missing}")
  if(NOT build_cuda AND SUDER_CUDA STREQUAL "ON")
    message(FATAL_ERROR "SUDER_CUDA=ON: ${cuda_missing}. Put an nvcc that works on the PATH, or set "
                        "CUDACXX to it and CUDAHOSTCXX to a C++ compiler that it takes, or use "
                        "SUDER_CUDA=OFF.\n${cuda_output}")
  endif()
endif()
message(STATUS "CUDA kernels: ${build_cuda} (SUDER_CUDA=${SUDER_CUDA}) ${cuda_missing}")
