// ONNX Runtime as the engine of a fastseg::Segmenter, by its C API, loaded at run time: no header
// and no library is needed to build. Any libonnxruntime of 1.17 or newer will do, that of Python's
// wheel too (from 1.19 on).
#ifndef FASTSEG_EXAMPLES_ONNXRUNTIME_HPP
#define FASTSEG_EXAMPLES_ONNXRUNTIME_HPP

#include <dlfcn.h>

#include <memory>

#include "../fastseg.hpp"

namespace fastseg {

namespace ort {

struct Status;
struct Env;
struct MemoryInfo;
struct Session;
struct Value;
struct RunOptions;
struct TensorInfo;
struct SessionOptions;

inline constexpr std::uint32_t kApiVersion = 17;  // of ONNX Runtime 1.17
inline constexpr int kLogFatal = 4, kUint8 = 2, kArenaAllocator = 1, kMemoryDefault = 0;

// The functions used here of OrtApi (onnxruntime_c_api.h). ONNX Runtime appends to that table and
// moves nothing in it, so that each stays at its place, which its comment says.
struct Api {
  const void* places_0[2];
  const char* (*error_message)(const Status*);                         // 2 GetErrorMessage
  Status* (*create_env)(int log_level, const char* name, Env**);       // 3 CreateEnv
  const void* places_4[3];
  Status* (*create_session)(const Env*, const char* path, const SessionOptions*,
                            Session**);                                // 7 CreateSession
  const void* places_8[1];
  Status* (*run)(Session*, const RunOptions*, const char* const* input_names,
                 const Value* const* inputs, std::size_t input_count,
                 const char* const* output_names, std::size_t output_count,
                 Value** outputs);                                     // 9 Run
  Status* (*create_options)(SessionOptions**);                         // 10 CreateSessionOptions
  const void* places_11[6];
  Status* (*disable_memory_pattern)(SessionOptions*);                  // 17 DisableMemPattern
  const void* places_18[4];
  Status* (*set_log_level)(SessionOptions*, int);        // 22 SetSessionLogSeverityLevel
  const void* places_23[1];
  Status* (*set_threads)(SessionOptions*, int);                        // 24 SetIntraOpNumThreads
  const void* places_25[24];
  Status* (*create_tensor)(const MemoryInfo*, void* data, std::size_t bytes,
                           const std::int64_t* shape, std::size_t sides, int type,
                           Value**);                     // 49 CreateTensorWithDataAsOrtValue
  const void* places_50[1];
  Status* (*tensor_data)(Value*, void**);                              // 51 GetTensorMutableData
  const void* places_52[8];
  Status* (*element_type)(const TensorInfo*, int*);                    // 60 GetTensorElementType
  const void* places_61[3];
  Status* (*element_count)(const TensorInfo*, std::size_t*);  // 64 GetTensorShapeElementCount
  Status* (*tensor_info)(const Value*, TensorInfo**);                  // 65 GetTensorTypeAndShape
  const void* places_66[3];
  Status* (*create_memory_info)(int allocator, int memory, MemoryInfo**);  // 69 CreateCpuMemoryInfo
  const void* places_70[22];
  void (*release_env)(Env*);                                           // 92 ReleaseEnv
  void (*release_status)(Status*);                                     // 93 ReleaseStatus
  void (*release_memory_info)(MemoryInfo*);                            // 94 ReleaseMemoryInfo
  void (*release_session)(Session*);                                   // 95 ReleaseSession
  void (*release_value)(Value*);                                       // 96 ReleaseValue
  const void* places_97[2];
  void (*release_tensor_info)(TensorInfo*);           // 99 ReleaseTensorTypeAndShapeInfo
  void (*release_options)(SessionOptions*);           // 100 ReleaseSessionOptions
  const void* places_101[29];
  Status* (*add_config)(SessionOptions*, const char* key, const char* value);
};  // 130 AddSessionConfigEntry
static_assert(offsetof(Api, run) == 9 * sizeof(void*));
static_assert(offsetof(Api, element_count) == 64 * sizeof(void*));
static_assert(offsetof(Api, release_options) == 100 * sizeof(void*));
static_assert(offsetof(Api, add_config) == 130 * sizeof(void*));

struct ApiBase {
  const Api* (*get_api)(std::uint32_t version);
  const char* (*version)();
};

// The functions of a library, "libonnxruntime.so" or a path. It stays loaded: its threads may
// outlive whoever closes it.
inline const Api& load(const std::string& library) {
  void* const handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw Error("ONNX Runtime cannot be loaded: " + std::string(dlerror()));
  void* const entry = dlsym(handle, "OrtGetApiBase");
  if (entry == nullptr) throw Error(library + " has no OrtGetApiBase: it is no ONNX Runtime");
  const ApiBase& base = *reinterpret_cast<const ApiBase* (*)()>(entry)();
  const Api* const api = base.get_api(kApiVersion);
  if (api == nullptr)
    throw Error(library + " is ONNX Runtime " + base.version() + "; 1." +
                std::to_string(kApiVersion) + " or newer is needed");
  return *api;
}

}  // namespace ort

// threads: of the CPU; 0: as many as ONNX Runtime likes.
class OnnxRuntime {
 public:
  OnnxRuntime(const std::string& library, const std::filesystem::path& folder,
              const Contract& contract, int threads)
      : api_(&ort::load(library)), contract_(contract) {
    env_ = made(api_->release_env, api_->create_env, ort::kLogFatal, "fastseg");
    memory_ = made(api_->release_memory_info, api_->create_memory_info, ort::kArenaAllocator,
                   ort::kMemoryDefault);
    const auto options = made(api_->release_options, api_->create_options);
    check(api_->set_log_level(options.get(), ort::kLogFatal));  // errors come as such
    // As in Python: backend_onnxruntime.py says why.
    check(api_->disable_memory_pattern(options.get()));
    check(api_->add_config(options.get(), "session.force_spinning_stop", "1"));
    if (contract.backend == "tensorrt") {  // as_another_means_it() there
      check(api_->add_config(options.get(), "session.disable_quant_qdq", "1"));
      check(api_->add_config(options.get(), "optimization.disable_specified_optimizers",
                             "WeightBiasQuantization"));
    }
    if (threads > 0) check(api_->set_threads(options.get(), threads));
    const std::string path = (folder / contract.file).string();
    session_ = made(api_->release_session, api_->create_session, env_.get(), path.c_str(),
                    options.get());
  }

  const std::uint8_t* operator()(const std::uint8_t* image) {
    const std::int64_t shape[] = {1, contract_.input.height, contract_.input.width, 3};
    const auto bytes = static_cast<std::size_t>(shape[1] * shape[2] * shape[3]);
    // No copy: ONNX Runtime reads the bytes where they are, and does not write to an input.
    auto* const pixels = const_cast<std::uint8_t*>(image);
    const auto input = made(api_->release_value, api_->create_tensor, memory_.get(), pixels, bytes,
                            shape, std::size_t{4}, ort::kUint8);
    const char* const input_name = contract_.input.name.c_str();
    const char* const output_name = contract_.output.name.c_str();
    const ort::Value* const given = input.get();
    ids_.reset();
    ids_ = made(api_->release_value, api_->run, session_.get(), nullptr, &input_name, &given,
                std::size_t{1}, &output_name, std::size_t{1});
    return ids();
  }

 private:
  template <class T>
  using Owned = std::unique_ptr<T, void (*)(T*)>;

  // Throws what a call says that did not succeed, on one line.
  void check(ort::Status* status) const {
    if (status == nullptr) return;
    const Owned<ort::Status> owned(status, api_->release_status);
    std::string message = api_->error_message(status);
    std::replace(message.begin(), message.end(), '\n', ' ');
    throw Error("ONNX Runtime: " + message);
  }

  // What a call makes, whose last parameter is the pointer to fill in.
  template <class T, class Call, class... Arguments>
  Owned<T> made(void (*release)(T*), Call call, Arguments... arguments) const {
    T* result = nullptr;
    check(call(arguments..., &result));
    return {result, release};
  }

  const std::uint8_t* ids() const {
    const auto info = made(api_->release_tensor_info, api_->tensor_info, ids_.get());
    int type = 0;
    std::size_t count = 0;
    check(api_->element_type(info.get(), &type));
    check(api_->element_count(info.get(), &count));
    const auto expected = static_cast<std::size_t>(contract_.output.width) *
                          static_cast<std::size_t>(contract_.output.height);
    if (type != ort::kUint8 || count != expected)
      throw Error("the network's output is not what contract.json says; extract it again");
    void* data = nullptr;
    check(api_->tensor_data(ids_.get(), &data));
    return static_cast<const std::uint8_t*>(data);
  }

  const ort::Api* api_;
  Contract contract_;
  // Released in the opposite order.
  Owned<ort::Env> env_{nullptr, nullptr};
  Owned<ort::MemoryInfo> memory_{nullptr, nullptr};
  Owned<ort::Session> session_{nullptr, nullptr};
  Owned<ort::Value> ids_{nullptr, nullptr};
};

}  // namespace fastseg

#endif
