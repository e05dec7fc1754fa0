# Make imported targets fit this machine.
#
# CMake files of ROS packages that were built elsewhere and shipped as binary wheels name the
# Python and NumPy include folders of the machine that built them. CMake refuses an imported
# target whose include folder does not exist, so drop those that are missing and put this
# machine's in their place. A no-op on an ordinary ROS installation.
#
# Call it after the last find_package(); it looks at the imported targets of the calling folder.
function(mend_imported_targets)
  find_package(Python3 REQUIRED COMPONENTS Interpreter Development.Module NumPy)
  set(here ${Python3_INCLUDE_DIRS} ${Python3_NumPy_INCLUDE_DIRS})
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT folders)
      continue()
    endif()
    set(kept)
    set(missing FALSE)
    foreach(folder IN LISTS folders)
      if(IS_ABSOLUTE "${folder}" AND NOT EXISTS "${folder}")
        set(missing TRUE)
      else()
        list(APPEND kept "${folder}")
      endif()
    endforeach()
    if(missing)
      list(APPEND kept ${here})
      list(REMOVE_DUPLICATES kept)
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${kept}")
    endif()
  endforeach()
endfunction()

# Keep the include folders of `target` out of what it exports.
#
# rosidl exports the Python and NumPy folders of the building machine with the Python library of
# the interfaces: wrong on any other machine, and refused by CMake where the virtual environment
# lies inside the source tree.
function(export_no_include_folders target)
  get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
  if(folders)
    set_target_properties(${target} PROPERTIES
      INTERFACE_INCLUDE_DIRECTORIES "$<BUILD_INTERFACE:${folders}>")
  endif()
endfunction()
