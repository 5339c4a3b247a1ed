# tenon_find_llvm_archives(OUT): what a program links to have LLVM in itself instead of loading libLLVM.so: the archives
# of the llvm-config that tenon_find_llvm chose, the system's libraries that these name, the C++ runtime. OUT is
# empty where some are missing or do not link. For the tool alone: programs with libtenon.a take libLLVM.so.
function(tenon_find_llvm_archives out)
  set(${out} "" PARENT_SCOPE)
  execute_process(COMMAND "${TENON_LLVM_PROGRAM}" --link-static --libfiles --system-libs x86 aarch64 orcjit
    OUTPUT_VARIABLE words ERROR_QUIET RESULT_VARIABLE rc OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(NOT rc EQUAL 0)
    return()
  endif()
  string(REGEX REPLACE "[ \n]+" ";" words "${words}")
  set(libs "")
  foreach(word IN LISTS words)
    if(word MATCHES "\\.a$" AND NOT EXISTS "${word}")
      return()
    elseif(EXISTS "${word}" OR word MATCHES "^-l(rt|dl|m|pthread)$")
      list(APPEND libs "${word}")
    elseif(word MATCHES "^-l(.+)$") # without its development package a library still links; most of these nobody calls
      unset(library)
      find_library(library NAMES ${CMAKE_MATCH_1} lib${CMAKE_MATCH_1}.so.1 lib${CMAKE_MATCH_1}.so.2 NO_CACHE)
      if(library)
        list(APPEND libs "${library}")
      endif()
    endif()
  endforeach()
  unset(runtime)
  find_library(runtime NAMES libstdc++.so.6 stdc++ NO_CACHE)
  if(NOT runtime)
    return()
  endif()
  list(PREPEND libs -Wl,--gc-sections -Wl,--as-needed)
  list(APPEND libs "${runtime}")
  string(MAKE_C_IDENTIFIER "TENON_LLVM_ARCHIVES_${TENON_LLVM_PROGRAM}" links)
  if(NOT ${links}) # not again once it did: it takes a second or two
    get_target_property(headers Tenon::LLVM INTERFACE_INCLUDE_DIRECTORIES)
    try_compile(${links}
      SOURCE_FROM_CONTENT llvm.c "
#include <llvm-c/LLJIT.h>
#include <llvm-c/Target.h>
int main(void) {
  LLVMOrcLLJITRef jit;
  LLVMInitializeX86Target(), LLVMInitializeX86AsmParser(), LLVMInitializeAArch64AsmPrinter();
  return LLVMOrcCreateLLJIT(&jit, 0) != 0;
}"
      CMAKE_FLAGS "-DINCLUDE_DIRECTORIES=${headers}"
      LINK_LIBRARIES ${libs})
  endif()
  if(${links})
    set(${out} "${libs}" PARENT_SCOPE)
  endif()
endfunction()
