/* PyTorch state dicts, .bin, .pt and .pth: both forms that torch.save has written since 0.1.10.
 *
 *   zip (since 1.6)   TOP/data.pkl, TOP/data/KEY for each storage, TOP/version, [TOP/byteorder]
 *   legacy            pickles: magic number, 1001, {"little_endian", ...}, the object, [keys of storages];
 *                     then for each key: i64 elements | data
 *
 * The pickle is run by format/pickle.h, which builds descriptions of tensors and calls nothing. The
 * object is a dict of tensors; or one whose "state_dict", "model_state_dict" or "model" is (others of
 * its values, an optimizer's and such, are left alone). Values that are no tensors are skipped. Tensors
 * may share a storage, and may be views of it: ash_tensor.strides. Refused by name: TorchScript, tar
 * files, big endian, whole modules, sparse and quantised tensors.
 *
 * Only the directory, the pickle and the legacy form's lengths are read. Sources: torch/serialization.py,
 * torch/_utils.py. */
#ifndef ASHLEY_FORMAT_TORCH_H
#define ASHLEY_FORMAT_TORCH_H

#include <stdatomic.h>

#include "format/tensor_list.h"

/* An ash_tensor_reader; arg is not used. ASH_EFORMAT malformed or cut, ASH_EUNSUPPORTED as above or a
 * pickle that asks for more than tensors, ASH_ELIMIT over a cap of base/limits.h. Errors name file,
 * byte, and tensor or storage. */
int ash_torch_read(void *arg, ash_tensor_list *list, uint32_t file, ash_err *err) ASH_MUST_CHECK;

/* Reads all of a file that ash_torch_read took and compares its records with the CRC-32 that the zip form
 * keeps of each; *n counts those that have one (torch can be told to write none, and the legacy form has
 * none). ASH_EFORMAT names the record that differs; ASH_ECANCELED soon after *cancel, which may be NULL.
 * Takes no memory that grows with the file: pages are given back behind. */
int ash_torch_checksums(const ash_tensor_file *f, const atomic_bool *cancel, size_t *n,
                        ash_err *err) ASH_MUST_CHECK;

#endif
