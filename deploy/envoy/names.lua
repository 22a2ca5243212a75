-- Generated from the contract. Renew it with: UPDATE=1 cargo test --test it gateway
return {
  aliases = {
    created_date = "createdDate",
    first_name = "firstName",
    last_name = "lastName",
    locked_fields = "lockedFields",
    phone_number = "phoneNumber",
    postal_code = "postalCode",
    request_id = "requestId",
    updated_date = "updatedDate",
    validate_only = "validateOnly",
  },
  messages = {
    Identifier = {
      system = "string",
      value = "string",
    },
    Profile = {
      address = "string",
      address2 = "string",
      city = "string",
      country = "string",
      createdDate = "output",
      dob = "string",
      email = "string",
      etag = "string",
      firstName = "string",
      gender = { "GENDER_UNSPECIFIED", "MALE", "FEMALE", "OTHER" },
      id = "string",
      identifiers = "[Identifier]",
      lastName = "string",
      lockedFields = "output",
      phoneNumber = "string",
      postalCode = "string",
      role = "output",
      state = "string",
      updatedDate = "output",
    },
    UpdateProfileRequest = {
      action = { "ACTION_UNSPECIFIED", "UPDATE_PROFILE" },
      data = "Profile",
      requestId = "string",
      validateOnly = "boolean",
    },
  },
  routes = {
    CreateProfile = {
      message = "Profile",
      query = {
        requestId = "string",
        validateOnly = "boolean",
      },
    },
    GetProfile = {
      query = {},
    },
    PatchProfile = {
      message = "Profile",
      query = {
        requestId = "string",
        validateOnly = "boolean",
      },
    },
    ReplaceProfile = {
      message = "Profile",
      query = {
        requestId = "string",
        validateOnly = "boolean",
      },
    },
    UpdateProfile = {
      message = "UpdateProfileRequest",
      query = {},
    },
  },
}
