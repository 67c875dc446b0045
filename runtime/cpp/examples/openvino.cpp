// Pictures in on stdin, class ids out on stdout, by OpenVINO:
//
//   ffmpeg -i drive.mp4 -f image2pipe -c:v ppm - | fastseg_openvino model ids > drive.pgm
//
// `overlay` in place of `ids` writes the pictures with the classes' colours. DEVICE (CPU, GPU, NPU)
// and THREADS may follow; the time of each frame goes to stderr.
#include <openvino/openvino.hpp>

#include "pictures.hpp"

namespace {

class OpenVino {
 public:
  OpenVino(const std::string& folder, const fastseg::Contract& contract, const std::string& device,
           int threads)
      : contract_(contract) {
    ov::AnyMap options{ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY)};
    if (threads > 0) options.insert(ov::inference_num_threads(threads));
    const auto height = static_cast<std::size_t>(contract.input.height);
    const auto width = static_cast<std::size_t>(contract.input.width);
    shape_ = {1, height, width, 3};
    request_ = core_.compile_model(folder + "/" + contract.file, device, options)
                   .create_infer_request();
    const ov::Tensor ids = request_.get_tensor(contract.output.name);
    if (ids.get_element_type() != ov::element::u8 ||
        ids.get_size() != static_cast<std::size_t>(contract.output.width) *
                              static_cast<std::size_t>(contract.output.height))
      throw fastseg::Error("the network's output is not what contract.json says; extract it again");
  }

  const std::uint8_t* operator()(const std::uint8_t* image) {
    // No copy: OpenVINO reads the bytes where they are, and does not write to an input.
    auto* pixels = const_cast<std::uint8_t*>(image);
    request_.set_tensor(contract_.input.name, ov::Tensor(ov::element::u8, shape_, pixels));
    request_.infer();
    return request_.get_tensor(contract_.output.name).data<const std::uint8_t>();
  }

 private:
  fastseg::Contract contract_;
  ov::Core core_;
  ov::Shape shape_;
  ov::InferRequest request_;
};

}  // namespace

int main(int argc, char** argv) {
  const char* const usage = "fastseg_openvino FOLDER ids|overlay [DEVICE [THREADS]] < PPM";
  return fastseg::answer_stream(argc, argv, usage, [&](const fastseg::Contract& contract) {
    return OpenVino(argv[1], contract, argc > 3 ? argv[3] : "CPU",
                    fastseg::read_threads(argc, argv, 4));
  });
}
