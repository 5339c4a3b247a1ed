# tenon_find_llvm(MAJORS CONFIG): finds a shared libLLVM through llvm-config and
# makes the imported target Tenon::LLVM with its C headers. MAJORS are tried in
# order; CONFIG, if not empty, is the only llvm-config tried. Sets TENON_LLVM_VERSION,
# TENON_LLVM_LIBRARY and TENON_LLVM_PROGRAM (that llvm-config); without a match it makes no target and says nothing.
# Used by Tenon's own build and, installed, by programs that link libtenon.a.
#
# llvm-config rather than LLVM's CMake package: that one wants a C++ compiler and
# the development files of every library LLVM itself was built with.
function(tenon_find_llvm majors config)
  if(TARGET Tenon::LLVM)
    return()
  endif()
  set(candidates "")
  if(config)
    set(candidates "${config}")
  else()
    foreach(major IN LISTS majors)
      list(APPEND candidates llvm-config-${major} llvm-config${major}
        /usr/lib/llvm-${major}/bin/llvm-config /usr/lib64/llvm${major}/bin/llvm-config
        /usr/local/opt/llvm@${major}/bin/llvm-config)
    endforeach()
    list(APPEND candidates llvm-config)
  endif()
  foreach(candidate IN LISTS candidates)
    unset(program)
    find_program(program NAMES "${candidate}" NO_CACHE)
    if(NOT program)
      continue()
    endif()
    execute_process(COMMAND "${program}" --version --includedir --libdir
      OUTPUT_VARIABLE out ERROR_QUIET RESULT_VARIABLE rc OUTPUT_STRIP_TRAILING_WHITESPACE)
    string(REPLACE "\n" ";" out "${out}")
    list(LENGTH out n)
    if(NOT rc EQUAL 0 OR n LESS 3)
      continue()
    endif()
    list(GET out 0 version)
    list(GET out 1 includedir)
    list(GET out 2 libdir)
    string(REGEX MATCH "^[0-9]+" major "${version}")
    if(NOT major IN_LIST majors)
      continue()
    endif()
    unset(library)
    find_library(library NAMES LLVM-${major} LLVM PATHS "${libdir}" NO_DEFAULT_PATH NO_CACHE)
    if(NOT library OR NOT EXISTS "${includedir}/llvm-c/Core.h")
      continue()
    endif()
    add_library(Tenon::LLVM SHARED IMPORTED GLOBAL)
    set_target_properties(Tenon::LLVM PROPERTIES
      IMPORTED_LOCATION "${library}"
      INTERFACE_INCLUDE_DIRECTORIES "${includedir}")
    set(TENON_LLVM_VERSION "${version}" PARENT_SCOPE)
    set(TENON_LLVM_LIBRARY "${library}" PARENT_SCOPE)
    set(TENON_LLVM_PROGRAM "${program}" PARENT_SCOPE)
    return()
  endforeach()
endfunction()
