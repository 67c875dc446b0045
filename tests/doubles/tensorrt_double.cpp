// Behaviour behind the headers of tensorrt_headers.py, in the place of TensorRT and a GPU.
//
// An engine file is the release's version, then each tensor: NAME input|output TYPE SIDE... . The
// network is the strongest channel of each pixel. What is put into a stream happens when somebody
// waits for it, as on a GPU; memory of the two sides is told apart; what is left over is told at
// the end. $FAULT names a call that fails.
#include <NvInfer.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <vector>

struct CUstream_st {
  std::vector<std::function<cudaError_t()>> waiting;
};

namespace {

using Memory = std::map<const char*, std::size_t>;

struct World {
  Memory device, pinned;
  int streams = 0, objects = 0;
  ~World() {
    if (device.size() + pinned.size() != 0 || streams != 0 || objects != 0)
      std::fprintf(stderr, "left: %zu device, %zu pinned, %d streams, %d objects\n", device.size(),
                   pinned.size(), streams, objects);
  }
} world;

bool faulty(const char* call) {
  const char* const fault = std::getenv("FAULT");
  return fault != nullptr && std::strcmp(fault, call) == 0;
}

cudaError_t allocate(Memory& memory, void** out, std::size_t bytes, const char* call) {
  if (faulty(call)) return cudaErrorMemoryAllocation;
  char* const made = new char[bytes];
  std::memset(made, 0xAB, bytes);  // nobody's ids
  memory[made] = bytes;
  *out = made;
  return cudaSuccess;
}

cudaError_t release(Memory& memory, void* pointer) {
  if (pointer == nullptr) return cudaSuccess;
  if (memory.erase(static_cast<char*>(pointer)) == 0) return cudaErrorInvalidValue;
  delete[] static_cast<char*>(pointer);
  return cudaSuccess;
}

bool has(const Memory& memory, const void* pointer, std::size_t bytes) {
  const auto found = memory.find(static_cast<const char*>(pointer));
  return found != memory.end() && bytes <= found->second;
}

struct Port {
  std::string name;
  nvinfer1::TensorIOMode mode;
  nvinfer1::DataType type;
  nvinfer1::Dims shape;
};

struct Counted {
  Counted() { ++world.objects; }
  ~Counted() { --world.objects; }
};

class Context : public nvinfer1::IExecutionContext, Counted {
 public:
  explicit Context(std::vector<Port> ports) : ports_(std::move(ports)) {}

  bool setTensorAddress(char const* name, void* data) noexcept override {
    addresses_[name] = static_cast<unsigned char*>(data);
    return !faulty("setTensorAddress") && has(world.device, data, 1);
  }

  bool enqueueV3(cudaStream_t stream) noexcept override {
    if (faulty("enqueueV3") || stream == nullptr || addresses_.size() != ports_.size())
      return false;
    stream->waiting.push_back([this] { return run(); });
    return true;
  }

 private:
  cudaError_t run() {
    if (faulty("kernel")) return cudaErrorInvalidValue;
    const unsigned char* image = nullptr;
    for (const Port& port : ports_)
      if (port.mode == nvinfer1::TensorIOMode::kINPUT) image = addresses_[port.name];
    for (const Port& port : ports_) {
      if (port.mode == nvinfer1::TensorIOMode::kINPUT) continue;
      unsigned char* const ids = addresses_[port.name];
      const auto pixels = port.shape.d[1] * port.shape.d[2];
      for (std::ptrdiff_t pixel = 0; pixel < static_cast<std::ptrdiff_t>(pixels); ++pixel)
        ids[pixel] = static_cast<unsigned char>(
            std::max_element(image + 3 * pixel, image + 3 * pixel + 3) - (image + 3 * pixel));
    }
    return cudaSuccess;
  }

  std::vector<Port> ports_;
  std::map<std::string, unsigned char*> addresses_;
};

class Engine : public nvinfer1::ICudaEngine, Counted {
 public:
  explicit Engine(std::vector<Port> ports) : ports_(std::move(ports)) {}

  nvinfer1::IExecutionContext* createExecutionContext() noexcept override {
    return faulty("createExecutionContext") ? nullptr : new Context(ports_);
  }
  int32_t getNbIOTensors() const noexcept override { return static_cast<int32_t>(ports_.size()); }
  char const* getIOTensorName(int32_t index) const noexcept override {
    return ports_[static_cast<std::size_t>(index)].name.c_str();
  }
  nvinfer1::TensorIOMode getTensorIOMode(char const* name) const noexcept override {
    return port(name).mode;
  }
  nvinfer1::DataType getTensorDataType(char const* name) const noexcept override {
    return port(name).type;
  }
  nvinfer1::Dims getTensorShape(char const* name) const noexcept override {
    return port(name).shape;
  }

 private:
  const Port& port(const std::string& name) const {
    return *std::find_if(ports_.begin(), ports_.end(),
                         [&](const Port& entry) { return entry.name == name; });
  }
  std::vector<Port> ports_;
};

class Runtime : public nvinfer1::IRuntime, Counted {
 public:
  explicit Runtime(nvinfer1::ILogger& logger) : logger_(logger) {}

  nvinfer1::ICudaEngine* deserializeCudaEngine(void const* blob,
                                               std::size_t size) noexcept override {
    std::istringstream text(std::string(static_cast<const char*>(blob), size));
    std::string version, mode, type;
    text >> version;
    if (version != DOUBLE_OF) {
      logger_.log(nvinfer1::ILogger::Severity::kERROR, "IRuntime::deserializeCudaEngine:\nError "
                                                       "Code 1: Serialization (version tag)");
      logger_.log(nvinfer1::ILogger::Severity::kINFO, "nothing to see");
      return nullptr;
    }
    std::vector<Port> ports;
    for (std::string line; std::getline(text, line);) {
      std::istringstream words(line);
      Port port{};
      if (!(words >> port.name >> mode >> type)) continue;
      port.mode = mode == "input" ? nvinfer1::TensorIOMode::kINPUT
                                  : nvinfer1::TensorIOMode::kOUTPUT;
      port.type = type == "uint8" ? nvinfer1::DataType::kUINT8 : nvinfer1::DataType::kFLOAT;
      while (words >> port.shape.d[port.shape.nbDims]) ++port.shape.nbDims;
      ports.push_back(port);
    }
    return new Engine(ports);
  }

 private:
  nvinfer1::ILogger& logger_;
};

}  // namespace

nvinfer1::IRuntime* nvinfer1::createInferRuntime(ILogger& logger) noexcept {
  return faulty("createInferRuntime") ? nullptr : new Runtime(logger);
}

extern "C" {
const char* cudaGetErrorString(cudaError_t code) {
  return code == cudaErrorMemoryAllocation ? "out of memory" : "invalid argument";
}
cudaError_t cudaMalloc(void** out, std::size_t bytes) {
  return allocate(world.device, out, bytes, "cudaMalloc");
}
cudaError_t cudaFree(void* memory) { return release(world.device, memory); }
cudaError_t cudaHostAlloc(void** out, std::size_t bytes, unsigned) {
  return allocate(world.pinned, out, bytes, "cudaHostAlloc");
}
cudaError_t cudaFreeHost(void* memory) { return release(world.pinned, memory); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned) {
  if (faulty("cudaStreamCreateWithFlags")) return cudaErrorMemoryAllocation;
  ++world.streams;
  *out = new CUstream_st;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  --world.streams;
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const bool up = kind == cudaMemcpyHostToDevice;
  if (faulty(up ? "upload" : "download") || !has(world.device, up ? to : from, bytes))
    return cudaErrorInvalidValue;
  stream->waiting.push_back([=] {
    std::memcpy(to, from, bytes);
    return cudaSuccess;
  });
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const auto waiting = std::move(stream->waiting);
  stream->waiting.clear();
  for (const auto& work : waiting)
    if (const cudaError_t code = work()) return code;
  return cudaSuccess;
}
}
